// Tiles of keys, and the queries that see them, on their way past.
#pragma once

#include "tiles.cuh"

// A tile of keys of a segment.
struct Keys {
    int row, count, position;
    u32 runs_begin, runs_end;

    // Entry of the table: first key's row, keys, its position, begin and end of the runs of queries, 0, 0, 0.
    __device__ __forceinline__ Keys(const u32 *table, int rows_of_block) {
        int parts = ENTRY / rows_of_block;
        const uint4 *entry = reinterpret_cast<const uint4 *>(table) + blockIdx.y / parts * 2;
        uint4 a = entry[0];
        int start = blockIdx.y % parts * rows_of_block;
        row = a.x + start, count = min(rows_of_block, static_cast<int>(a.y) - start), position = a.z + start;
        runs_begin = a.w, runs_end = entry[1].x;
    }
};

// The queries that see a tile of keys, tile by tile: for each query head of the KV head, for each run of queries (the
// keys' own segment, then its children).
struct Walk {
    const uint4 *runs;
    u32 run, runs_begin, runs_end, head, head_end;
    // Positions from which on, and before which, queries see a key of the tile.
    int from, before;
    // The tile: its first query in the run, the end of the run's queries that see the keys.
    int query, end, row, position0;

    __device__ __forceinline__ Walk(const Keys &keys, const u32 *runs, u32 kv_head, u32 group, int window)
        : runs(reinterpret_cast<const uint4 *>(runs)), run(keys.runs_begin), runs_begin(keys.runs_begin),
          runs_end(keys.runs_end), head(kv_head * group), head_end(kv_head * group + group), from(keys.position),
          before(keys.position + keys.count - 1 + window) {}

    // Goes to the next run with a query that sees the keys, from this one on.
    __device__ __forceinline__ bool settle() {
        for (; head < head_end; head++, run = runs_begin)
            for (; run < runs_end; run++) {
                uint4 entry = runs[run];
                row = entry.x, position0 = entry.z;
                query = max(0, from - position0), end = min(static_cast<int>(entry.y), before - position0);
                if (query < end) return true;
            }
        return false;
    }
    __device__ __forceinline__ bool next(int queries) {
        query += queries;
        if (query < end) return true;
        run++;
        return settle();
    }
};

__device__ __forceinline__ void copy_pair_async(u32 to, const void *from) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to), "l"(from));
}

// Starts the copies of a tile of q, of dout behind it, and of what the rows need of their own to `pairs`.
template <int QUERIES, int BLOCK = THREADS>
__device__ __forceinline__ void copy_queries(const Walk &at, u32 tile, u8 *pairs, const bf16 *q, const bf16 *dout,
                                             const float2 *rows, u32 n, u32 stride) {
    int row = at.row + at.query, count = at.end - at.query;
    copy_some<QUERIES, BLOCK>(tile, q + at.head * HEAD, stride, row, count);
    copy_some<QUERIES, BLOCK>(tile + QUERIES * PITCH, dout + at.head * HEAD, stride, row, count);
    if (threadIdx.x < QUERIES) {
        float2 *to = reinterpret_cast<float2 *>(pairs) + threadIdx.x;
        if (static_cast<int>(threadIdx.x) < count)
            copy_pair_async(shared_address(to), rows + static_cast<i64>(at.head) * n + row + threadIdx.x);
        // A row that is not there has an infinite sum: its weights are zero.
        else *to = make_float2(INFINITE, 0.0f);
    }
    copies_commit();
}
