// Rows of a table by index, a block a row, and the sum of gradients by index.
#include "common.cuh"

template <typename T>
__device__ __forceinline__ void forward(const u32 *ids, const T *table, bf16 *y, u32 rows, u32 c) {
    u32 id = ids[blockIdx.x];
    const T *from = table + u64(id) * c;
    bf16 *to = y + u64(blockIdx.x) * c;
    bool known = id < rows;
    if (known && c % 8 == 0) {
        for (u32 i = threadIdx.x * 8; i < c; i += 256 * 8) {
            float v[8];
            load8(from + i, v);
            store8(to + i, v);
        }
    } else {
        // An index past the table shows as NaN instead of reading what is not there.
        for (u32 i = threadIdx.x; i < c; i += 256) {
            to[i] = from_f32<bf16>(known ? to_f32(from[i]) : __uint_as_float(0x7fc00000u));
        }
    }
}

extern "C" __global__ void embedding_forward_bf16(const u32 *ids, const bf16 *table, bf16 *y, u32 rows, u32 c) {
    forward(ids, table, y, rows, c);
}
extern "C" __global__ void embedding_forward_f32(const u32 *ids, const float *table, bf16 *y, u32 rows, u32 c) {
    forward(ids, table, y, rows, c);
}

// dtable[ids[i]] += dy[i]. The block of an id's first occurrence adds all of them, in the order they occur.
template <typename T>
__device__ __forceinline__ void backward(const u32 *ids, const bf16 *dy, T *dtable, u32 n, u32 rows, u32 c) {
    __shared__ u32 found[256];
    __shared__ u32 counts[256 / WARP];
    u32 first = blockIdx.x, id = ids[first];
    int seen = 0;
    for (u32 j = threadIdx.x; j < first; j += 256) seen |= ids[j] == id;
    if (__syncthreads_or(seen) || id >= rows) return;
    T *to = dtable + u64(id) * c;
    for (u32 start = first; start < n; start += 256) {
        u32 j = start + threadIdx.x;
        bool here = j < n && ids[j] == id;
        u32 mask = __ballot_sync(FULL, here);
        u32 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
        if (lane == 0) counts[warp] = __popc(mask);
        __syncthreads();
        u32 before = 0, total = 0;
        for (u32 w = 0; w < 256 / WARP; w++) {
            before += w < warp ? counts[w] : 0;
            total += counts[w];
        }
        if (here) found[before + __popc(mask & ((1u << lane) - 1))] = j;
        __syncthreads();
        for (u32 i = threadIdx.x; total > 0 && i < c; i += 256) {
            float sum = to_f32(to[i]);
            for (u32 k = 0; k < total; k++) sum += to_f32(dy[u64(found[k]) * c + i]);
            to[i] = from_f32<T>(sum);
        }
        __syncthreads();
    }
}

extern "C" __global__ void embedding_backward_bf16(const u32 *ids, const bf16 *dy, bf16 *dtable, u32 n, u32 rows, u32 c) {
    backward(ids, dy, dtable, n, rows, c);
}
extern "C" __global__ void embedding_backward_f32(const u32 *ids, const bf16 *dy, float *dtable, u32 n, u32 rows, u32 c) {
    backward(ids, dy, dtable, n, rows, c);
}
