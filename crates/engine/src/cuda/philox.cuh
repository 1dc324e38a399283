// Philox 4x32-10 (Salmon et al., SC 2011), the same numbers as random.rs.
#pragma once
#include "common.cuh"

__device__ __forceinline__ uint4 philox(u32 key0, u32 key1, uint4 x) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        u32 high_a = __umulhi(x.x, 0xD2511F53u), low_a = x.x * 0xD2511F53u;
        u32 high_b = __umulhi(x.z, 0xCD9E8D57u), low_b = x.z * 0xCD9E8D57u;
        x = make_uint4(high_b ^ x.y ^ key0, low_b, high_a ^ x.w ^ key1, low_a);
        key0 += 0x9E3779B9u, key1 += 0xBB67AE85u;
    }
    return x;
}
