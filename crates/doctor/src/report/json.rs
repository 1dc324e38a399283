//! The report for programs: `{machine, prospect, python, findings}`.

use crate::diagnosis::Diagnosis;
use crate::table::{Fact, Scope, Value};
use serde_json::{Map, Number, Value as Json, json};

/// The whole diagnosis as JSON.
pub fn json(diagnosis: &Diagnosis) -> Json {
    let all = &diagnosis.table.all;
    let of = |prefixes: &[&str]| -> Map<String, Json> {
        let ours = all.iter().filter(|(name, _)| {
            prefixes.iter().any(|p| *name == p || name.starts_with(&format!("{p}.")))
        });
        ours.map(|(name, fact)| (name.clone(), value(fact))).collect()
    };
    let mut machine = of(&[
        "driver", "nvml", "cuda", "host", "cgroup", "hf", "tmp", "glibc", "xid", "aer", "visible",
        "wsl", "pci", "p2p", "nouveau", "device",
    ]);
    let gpus: Vec<Json> = scopes(diagnosis, "gpu").iter().map(object).collect();
    machine.insert("gpus".into(), Json::Array(gpus));
    let mut prospect = of(&["engine", "cublaslt", "nccl", "cpu", "gpu", "sizes"]);
    let tests: Vec<Json> = scopes(diagnosis, "self-test").iter().map(object).collect();
    prospect.insert("self_test".into(), Json::Array(tests));
    let python = match &diagnosis.environment {
        None => Json::Null,
        Some(_) => {
            let mut python = of(&[
                "environment",
                "python",
                "torch",
                "bitsandbytes",
                "xformers",
                "unsloth",
                "nvidia",
                "flash-attn",
                "build",
            ]);
            let packages: Map<String, Json> = diagnosis
                .found
                .dists
                .iter()
                .map(|d| (d.name.clone(), json!(d.version.to_string())))
                .collect();
            python.insert("packages".into(), Json::Object(packages));
            let extensions: Vec<Json> = scopes(diagnosis, "extension").iter().map(object).collect();
            python.insert("extensions".into(), Json::Array(extensions));
            Json::Object(python)
        }
    };
    json!({
        "machine": machine,
        "prospect": prospect,
        "python": python,
        "findings": serde_json::to_value(&diagnosis.findings).unwrap_or(Json::Null),
    })
}

fn scopes<'a>(diagnosis: &'a Diagnosis, kind: &str) -> &'a [Scope] {
    diagnosis.table.each.get(kind).map(Vec::as_slice).unwrap_or_default()
}

fn object(scope: &Scope) -> Json {
    let plain =
        |name: &String| name.split_once('.').map_or(name.clone(), |(_, rest)| rest.to_string());
    Json::Object(scope.iter().map(|(name, fact)| (plain(name), value(fact))).collect())
}

fn value(fact: &Fact) -> Json {
    match &fact.value {
        Value::Number(n) => {
            Number::from_f64((n * 100.0).round() / 100.0).map_or(Json::Null, Json::Number)
        }
        Value::Flag(flag) => Json::Bool(*flag),
        Value::List(all) => json!(all),
        Value::Version(_) => json!(fact.shown()),
        Value::Text(t) => json!(t),
    }
}
