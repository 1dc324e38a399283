//! The packed step against the plain list of sequences it stands for.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// An example as owned data.
#[derive(Clone, Debug)]
struct Owned {
    prompt: Vec<u32>,
    completion: Vec<u32>,
    family: usize,
}

/// Packs groups whose partners are TRL's rotation.
fn packed(groups: &[Vec<Owned>], options: &PackOptions) -> PackedStep {
    let members = |group: &'_ Vec<Owned>| -> Vec<usize> {
        (0..group.len()).map(|place| (place + group.len() - 1) % group.len()).collect()
    };
    let mut index = 0;
    let mut member_groups = Vec::new();
    for group in groups {
        let mut member_group = Vec::new();
        for (owned, partner) in group.iter().zip(members(group)) {
            let Owned { prompt, completion, family } = owned;
            let (label, pair, family) = (index % 2 == 0, None, *family);
            member_group.push(Member { index, prompt, completion, label, family, partner, pair });
            index += 1;
        }
        member_groups.push(member_group);
    }
    pack(&member_groups, options)
}

/// What a completion should be: its ids, and (position, token) of what is scored.
fn naive(
    group: &[Owned],
    completion: &Completion,
    options: &PackOptions,
) -> (Vec<u32>, Vec<(usize, u32)>) {
    let Owned { prompt, completion: own, .. } = &group[completion.example];
    let answer = match completion.role {
        Role::Rated | Role::Prompt => own,
        Role::Mismatched => &group[(completion.example + group.len() - 1) % group.len()].completion,
    };
    let mut ids = [prompt.as_slice(), answer].concat();
    ids.truncate(options.max_length.unwrap_or(usize::MAX));
    let scored = match completion.role {
        Role::Prompt => 1..prompt.len(),
        _ => prompt.len().max(1)..ids.len(),
    };
    let scored = scored.map(|at| (at - 1, ids[at])).collect();
    (ids, scored)
}

fn check_micro_batch(groups: &[Vec<Owned>], batch: &MicroBatch, options: &PackOptions) {
    let positions = batch.positions();
    assert_eq!(positions.len(), batch.rows());
    let mut next = 0;
    for (index, segment) in batch.segments.iter().enumerate() {
        assert_eq!(segment.start, next);
        assert!(segment.len > 0);
        next += segment.len;
        match segment.parent {
            Some(parent) => {
                assert!(parent < index && batch.segments[parent].parent.is_none());
                assert_eq!(segment.position0, batch.segments[parent].len);
            }
            None => assert_eq!(segment.position0, 0),
        }
    }
    assert_eq!(next, batch.rows());
    let leaves = batch.completion_segments();
    let is_prompt = |completion: &Completion| completion.role == Role::Prompt;
    assert_eq!(
        batch.completions.iter().position(is_prompt).unwrap_or(batch.completions.len()),
        leaves.len(),
        "prompts come last"
    );
    for (number, completion) in batch.completions.iter().enumerate() {
        // A scored prompt is that of the chosen completion, and lies on the same rows.
        let own = Completion { role: Role::Rated, ..*completion };
        let place = |wanted: &Completion| batch.completions.iter().position(|c| c == wanted);
        let leaf = leaves[if is_prompt(completion) { place(&own).unwrap() } else { number }];
        let segment = &batch.segments[leaf];
        let mut walk: Vec<usize> = Vec::new();
        if let Some(parent) = segment.parent {
            let parent = &batch.segments[parent];
            walk.extend(parent.start..parent.start + parent.len);
        }
        walk.extend(segment.start..segment.start + segment.len);
        let (ids, scored) = naive(&groups[completion.group], completion, options);
        assert_eq!(walk.iter().map(|&row| batch.tokens[row]).collect::<Vec<_>>(), ids);
        assert!(walk.iter().enumerate().all(|(at, &row)| positions[row] as usize == at));
        let found: Vec<(usize, u32)> = batch
            .scored
            .iter()
            .filter(|scored| scored.completion == number)
            .map(|scored| (positions[scored.row] as usize, scored.target))
            .collect();
        assert_eq!(found, scored);
        let rows = batch.scored.iter().filter(|scored| scored.completion == number);
        assert!(rows.clone().all(|scored| walk.contains(&scored.row)));
        match completion.role {
            Role::Rated | Role::Prompt => {
                assert!(segment.start + segment.len <= batch.rated_rows);
            }
            Role::Mismatched => assert!(segment.start >= batch.rated_rows),
        }
    }
    assert!(batch.scored.is_sorted_by_key(|scored| scored.completion));
    let mut prompts = HashMap::new();
    for (index, segment) in batch.segments.iter().enumerate() {
        if !leaves.contains(&index) {
            let tokens = &batch.tokens[segment.start..segment.start + segment.len];
            assert!(prompts.insert(tokens, index).is_none(), "a prompt is there twice");
        }
    }
}

fn check(groups: &[Vec<Owned>], options: &PackOptions) {
    let step = packed(groups, options);
    let mut seen: HashMap<(usize, usize, u8), usize> = HashMap::new();
    let mut desirable = 0;
    let mut largest_unit = 0;
    for (group, owned) in groups.iter().enumerate() {
        assert_eq!(step.groups[group].examples.len(), owned.len());
        desirable += step.groups[group].examples.iter().filter(|example| example.label).count();
        for example in 0..owned.len() {
            for role in [Role::Rated, Role::Mismatched] {
                let ids = naive(owned, &Completion { group, example, role }, options).0;
                largest_unit = largest_unit.max(ids.len());
            }
            let ids = naive(owned, &Completion { group, example, role: Role::Rated }, options).0;
            assert_eq!(step.groups[group].examples[example].tokens, ids.len());
        }
    }
    for (phase, batches) in [&step.kl_micro_batches, &step.micro_batches].into_iter().enumerate() {
        for batch in batches {
            check_micro_batch(groups, batch, options);
            assert!(batch.rows() <= options.token_budget.max(largest_unit));
            for completion in &batch.completions {
                assert!(phase == 1 || completion.role == Role::Mismatched);
                let role = completion.role as u8;
                *seen.entry((completion.group, completion.example, role)).or_default() += 1;
            }
            if phase == 0 {
                assert_eq!(batch.rated_rows, 0);
            }
        }
    }
    let examples: usize = groups.iter().map(Vec::len).sum();
    let mismatched = if options.mismatched { examples } else { 0 };
    let prompts = if options.scored_prompts { desirable } else { 0 };
    assert_eq!(seen.len(), examples + mismatched + prompts);
    assert!(seen.values().all(|&count| count == 1));
}

/// Prompts of a family are beginnings of one text, some of them empty; those of different
/// families differ from the first token on.
fn groups() -> impl Strategy<Value = Vec<Vec<Owned>>> {
    let completion = proptest::collection::vec(0u32..50, 1..9);
    let owned = (0usize..3, 0u32..5, completion).prop_map(|(family, len, completion)| {
        let prompt = (0..len).map(|at| 100 * family as u32 + at).collect();
        Owned { prompt, completion, family }
    });
    proptest::collection::vec(proptest::collection::vec(owned, 1..6), 1..5)
}

proptest! {
    #[test]
    fn a_packed_step_is_exactly_its_sequences(
        groups in groups(),
        max_length in proptest::option::of(5usize..10),
        token_budget in 1usize..80,
        mismatched: bool,
        scored_prompts: bool,
    ) {
        check(&groups, &PackOptions { max_length, token_budget, mismatched, together: false, scored_prompts });
    }
}

#[test]
fn prompts_that_end_differently_share_their_beginning() {
    let member = |prompt, completion, partner| Member {
        index: 0,
        prompt,
        completion,
        label: true,
        family: 0,
        partner,
        pair: None,
    };
    let group = vec![member(&[1, 2, 3], &[7, 8], 1), member(&[1, 2], &[9], 0)];
    let options = PackOptions {
        max_length: None,
        token_budget: 100,
        mismatched: false,
        together: false,
        scored_prompts: false,
    };
    let step = pack(&[group], &options);
    let batch = &step.micro_batches[0];
    assert_eq!(batch.tokens, [1, 2, 3, 7, 8, 9]);
    let scored: Vec<(usize, u32, usize)> =
        batch.scored.iter().map(|s| (s.row, s.target, s.completion)).collect();
    assert_eq!(scored, [(2, 7, 0), (3, 8, 0), (1, 9, 1)]);
    assert_eq!(batch.positions(), [0, 1, 2, 3, 4, 2]);
}

#[test]
fn halves_of_a_pair_stay_together_when_a_family_is_split() {
    let member = |completion, index: usize| Member {
        index,
        prompt: &[1, 2, 3, 4],
        completion,
        label: index.is_multiple_of(2),
        family: 0,
        partner: index,
        pair: Some(index ^ 1),
    };
    let answers: Vec<Vec<u32>> = (0..6).map(|i| vec![10 + i; 3]).collect();
    let group = answers.iter().enumerate().map(|(i, answer)| member(answer, i)).collect();
    let options = PackOptions {
        max_length: None,
        token_budget: 10,
        mismatched: false,
        together: false,
        scored_prompts: false,
    };
    let step = pack(&[group], &options);
    let examples: Vec<Vec<usize>> = step
        .micro_batches
        .iter()
        .map(|batch| batch.completions.iter().map(|completion| completion.example).collect())
        .collect();
    assert_eq!(examples, [[0, 1], [2, 3], [4, 5]]);
}

#[test]
fn a_group_that_fits_is_never_split_and_groups_fill_a_micro_batch() {
    let group: Vec<Owned> = (0..2u32)
        .map(|i| Owned { prompt: vec![i, 5], completion: vec![i + 10], family: i as usize })
        .collect();
    let options = PackOptions {
        max_length: None,
        token_budget: 16,
        mismatched: true,
        together: false,
        scored_prompts: false,
    };
    let step = packed(&[group.clone(), group.clone(), group], &options);
    assert!(step.kl_micro_batches.is_empty());
    // One group takes 2 prompts of 2 and 4 answers of 1; the second shares the prompts.
    let rows: Vec<usize> = step.micro_batches.iter().map(MicroBatch::rows).collect();
    assert_eq!(rows, [16]);
    assert_eq!(step.micro_batches[0].rated_rows, 10);
}

#[test]
fn what_is_split_stays_together_where_the_first_phase_leaves_what_the_second_begins_with() {
    let group: Vec<Owned> = (0..3u32)
        .map(|i| Owned { prompt: vec![i, 5], completion: vec![i + 10], family: i as usize })
        .collect();
    let apart = PackOptions {
        max_length: None,
        token_budget: 4,
        mismatched: true,
        together: false,
        scored_prompts: false,
    };
    let step = packed(std::slice::from_ref(&group), &apart);
    assert_eq!((step.kl_micro_batches.len(), step.micro_batches.len()), (3, 3));
    let step = packed(&[group], &PackOptions { together: true, ..apart });
    assert!(step.kl_micro_batches.is_empty());
    // A prompt of 2, its own answer and another's: one prompt for both.
    let rows: Vec<(usize, usize)> =
        step.micro_batches.iter().map(|batch| (batch.rows(), batch.rated_rows)).collect();
    assert_eq!(rows, [(4, 3), (4, 3), (4, 3)]);
}
