# torch's flash attention on this GPU, at the shapes and by the counting of the engine's speed_of_attention:
#
#   python3 xtask/bench/flash_attention.py
#
# causal, bf16, 8,192 rows; operations of visible pairs alone, backward 2.5 times forward's.
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def milliseconds(call):
    for _ in range(3):
        call()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    best = float("inf")
    for _ in range(3):
        start.record()
        for _ in range(20):
            call()
        end.record()
        torch.cuda.synchronize()
        best = min(best, start.elapsed_time(end) / 20)
    return best


def measure(length, heads, key_value_heads, head_dim, deterministic):
    torch.use_deterministic_algorithms(deterministic)
    count = 8192 // length

    def take(heads):
        # (batch, heads, length, head size) over memory that is (batch, length, heads, head size), as a model has it.
        return torch.randn(count, length, heads, head_dim, device="cuda", dtype=torch.bfloat16).transpose(1, 2).requires_grad_()

    q, k, v = take(heads), take(key_value_heads), take(key_value_heads)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):

        def attend():
            grouped = heads != key_value_heads
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)

        with torch.no_grad():
            forward = milliseconds(attend)
        out = attend()
        dout = torch.randn_like(out)
        backward = milliseconds(lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True))
    flops = 2 * count * length * length * heads * head_dim
    rate = lambda ms, flops: flops / ms / 1e9
    print(
        f"torch D={head_dim} H={heads} HKV={key_value_heads} {count} x {length}{' deterministic' if deterministic else ''}: "
        f"forward {forward:.3f} ms {rate(forward, flops):.0f} TFLOP/s, backward {backward:.3f} ms {rate(backward, 2.5 * flops):.0f} TFLOP/s",
        flush=True,
    )


print(torch.__version__, torch.cuda.get_device_name())
for heads, key_value_heads, head_dim in [(32, 8, 128), (32, 32, 128), (32, 8, 64), (16, 8, 256)]:
    for length in [1024, 2048, 8192]:
        for deterministic in [False, True]:
            try:
                measure(length, heads, key_value_heads, head_dim, deterministic)
            except RuntimeError as error:
                print(f"torch D={head_dim} {length} deterministic={deterministic}: {str(error).splitlines()[0]}")
