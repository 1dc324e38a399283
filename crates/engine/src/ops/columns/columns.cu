// Columns start..start + cols of a matrix of `width` columns, out of it and back into it; a thread moves V neighbours.
#include "common.cuh"

// The thread's first element in the part (of `cols` columns) and in the wide matrix.
template <int V> struct Place {
    u64 part, wide;
    __device__ __forceinline__ Place(u64 index, u32 cols, u32 width, u32 start) {
        u32 across = cols / V;
        u64 row = index / across;
        u32 column = u32(index % across) * V;
        part = row * cols + column;
        wide = row * width + start + column;
    }
};

template <int V> __device__ __forceinline__ void move(const bf16 *from, bf16 *to) {
    if (V == 8) {
        *reinterpret_cast<uint4 *>(to) = *reinterpret_cast<const uint4 *>(from);
    } else {
        *to = *from;
    }
}

template <int V>
__device__ __forceinline__ void take(const bf16 *wide, bf16 *part, u64 total, u32 cols, u32 width, u32 start) {
    u64 index = u64(blockIdx.x) * 256 + threadIdx.x;
    if (index >= total) return;
    Place<V> at(index, cols, width, start);
    move<V>(wide + at.wide, part + at.part);
}

template <int V>
__device__ __forceinline__ void put(const bf16 *part, bf16 *wide, u64 total, u32 cols, u32 width, u32 start) {
    u64 index = u64(blockIdx.x) * 256 + threadIdx.x;
    if (index >= total) return;
    Place<V> at(index, cols, width, start);
    move<V>(part + at.part, wide + at.wide);
}

extern "C" __global__ void columns_take_8(const bf16 *wide, bf16 *part, u64 total, u32 cols, u32 width, u32 start) {
    take<8>(wide, part, total, cols, width, start);
}
extern "C" __global__ void columns_take_1(const bf16 *wide, bf16 *part, u64 total, u32 cols, u32 width, u32 start) {
    take<1>(wide, part, total, cols, width, start);
}
extern "C" __global__ void columns_put_8(const bf16 *part, bf16 *wide, u64 total, u32 cols, u32 width, u32 start) {
    put<8>(part, wide, total, cols, width, start);
}
extern "C" __global__ void columns_put_1(const bf16 *part, bf16 *wide, u64 total, u32 cols, u32 width, u32 start) {
    put<1>(part, wide, total, cols, width, start);
}
