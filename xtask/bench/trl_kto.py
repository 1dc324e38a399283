"""The CPU benchmark's other half: makes the model and the data, and trains the same batches with TRL.

    python trl_kto.py make OUT            random weights, tokenizer, feedback, an empty adapter
    python trl_kto.py train OUT [--checkpointing] [--steps N]

Model: a Llama of hidden 512, 8 layers, 8 heads, intermediate 1408, vocabulary 8192, f32. Feedback: natural lengths,
log-normal (prompt median 150, completion median 200), as people's prompts and answers have them; cut at 512 tokens.
Needs torch, transformers, trl, peft, datasets, tokenizers; measured with torch 2.15.0, transformers 5.23.0, trl 1.16.0.
`train` prints one JSON object: tokens of the rated examples (without padding and KL sequences) a second, whole steps.
"""
import json
import math
import os
import random
import sys
import time

VOCABULARY, LAYERS, HIDDEN, INTERMEDIATE, HEADS = 8192, 8, 512, 1408, 8
BATCH, MAX_LENGTH, RANK = 8, 512, 16
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make(out):
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    import torch
    from peft import LoraConfig, get_peft_model

    special = ["<unk>", "<s>", "</s>", "<pad>"]
    words = [f"w{i}" for i in range(VOCABULARY - len(special))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(special + words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    model = os.path.join(out, "model")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    fast.save_pretrained(model)
    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=HIDDEN, intermediate_size=INTERMEDIATE, num_hidden_layers=LAYERS,
                         num_attention_heads=HEADS, num_key_value_heads=HEADS, vocab_size=VOCABULARY,
                         max_position_embeddings=2048, bos_token_id=1, eos_token_id=2, pad_token_id=3)
    base = LlamaForCausalLM(config).float()
    base.save_pretrained(model)
    lora = LoraConfig(r=RANK, lora_alpha=RANK, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM")
    get_peft_model(base, lora).save_pretrained(os.path.join(out, "adapter"))

    draw = random.Random(1234)
    text = lambda n: " ".join(draw.choices(words, k=n))
    with open(os.path.join(out, "feedback.jsonl"), "w") as file:
        for _ in range(512):
            prompt = min(max(8, round(150 * math.exp(0.85 * draw.gauss(0, 1)))), 500)
            completion = min(max(4, round(200 * math.exp(0.75 * draw.gauss(0, 1)))), 1536)
            row = {"prompt": text(prompt) + " ", "completion": text(completion) + " ", "label": draw.random() < 0.5}
            file.write(json.dumps(row) + "\n")


def train(out, checkpointing, steps):
    import torch
    from datasets import Dataset
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import KTOConfig, KTOTrainer

    model = AutoModelForCausalLM.from_pretrained(os.path.join(out, "model"), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(os.path.join(out, "model"))
    from peft import LoraConfig
    lora = LoraConfig(r=RANK, lora_alpha=RANK, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM")
    rows = [json.loads(line) for line in open(os.path.join(out, "feedback.jsonl"))][: BATCH * (steps + 2)]
    arguments = KTOConfig(output_dir=os.path.join(out, "trl"), per_device_train_batch_size=BATCH, max_steps=steps,
                          max_length=MAX_LENGTH, learning_rate=1e-5, gradient_checkpointing=checkpointing, bf16=False,
                          use_cpu=True, report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True)
    ends, tokens = [], []

    class Timer(TrainerCallback):
        def on_train_begin(self, *_, **__):
            ends.append(time.perf_counter())

        def on_step_end(self, *_, **__):
            ends.append(time.perf_counter())

    trainer = KTOTrainer(model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
                         peft_config=lora, callbacks=[Timer()])
    inner = trainer.data_collator

    def count(features, *args, **kwargs):
        batch = inner(features, *args, **kwargs)
        tokens.append(int(batch["attention_mask"].sum()))
        return batch

    trainer.data_collator = count
    trainer.train()
    seconds = ends[-1] - ends[1]  # the first step warms up
    counted = sum(tokens[1:steps])
    print(json.dumps({"tool": "trl", "checkpointing": checkpointing, "threads": torch.get_num_threads(), "steps": steps - 1,
                      "seconds": seconds, "rated_tokens": counted, "rated_tokens_per_second": counted / seconds}))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2])
    else:
        steps = int(sys.argv[sys.argv.index("--steps") + 1]) if "--steps" in sys.argv else 7
        train(sys.argv[2], "--checkpointing" in sys.argv, steps)
