"""XXH3-64 with seed 0 and the default secret, as its specification has it (R-08)."""

SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
M = (1 << 64) - 1
P32_1, P32_2, P32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
P64_1, P64_2, P64_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P64_4, P64_5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
MX1, MX2 = 0x165667919E3779F9, 0x9FB21C651E98DF25


def r32(data, at):
    return int.from_bytes(data[at : at + 4], "little")


def r64(data, at):
    return int.from_bytes(data[at : at + 8], "little")


def fold(a, b):
    product = a * b
    return (product & M) ^ (product >> 64)


def rotate(h, by):
    return (h << by | h >> (64 - by)) & M


def swap(h):
    return int.from_bytes(h.to_bytes(8, "little"), "big")


def avalanche(h):
    h ^= h >> 37
    h = h * MX1 & M
    return h ^ (h >> 32)


def avalanche_64(h):
    h ^= h >> 33
    h = h * P64_2 & M
    h ^= h >> 29
    h = h * P64_3 & M
    return h ^ (h >> 32)


def mix(data, at, secret):
    return fold(r64(data, at) ^ r64(SECRET, secret), r64(data, at + 8) ^ r64(SECRET, secret + 8))


def upto_16(data):
    n = len(data)
    if n > 8:
        low = r64(data, 0) ^ r64(SECRET, 24) ^ r64(SECRET, 32)
        high = r64(data, n - 8) ^ r64(SECRET, 40) ^ r64(SECRET, 48)
        return avalanche((n + swap(low) + high + fold(low, high)) & M)
    if n >= 4:
        h = (r32(data, n - 4) + (r32(data, 0) << 32)) ^ r64(SECRET, 8) ^ r64(SECRET, 16)
        h ^= rotate(h, 49) ^ rotate(h, 24)
        h = h * MX2 & M
        h ^= (h >> 35) + n
        h = h * MX2 & M
        return h ^ (h >> 28)
    if n:
        combined = data[0] << 16 | data[n >> 1] << 24 | data[n - 1] | n << 8
        return avalanche_64(combined ^ r32(SECRET, 0) ^ r32(SECRET, 4))
    return avalanche_64(r64(SECRET, 56) ^ r64(SECRET, 64))


def upto_240(data):
    n = len(data)
    h = n * P64_1
    if n <= 128:
        for step in range((n - 1) // 32, -1, -1):
            h += mix(data, 16 * step, 32 * step) + mix(data, n - 16 * (step + 1), 32 * step + 16)
        return avalanche(h & M)
    for step in range(8):
        h += mix(data, 16 * step, 16 * step)
    h = avalanche(h & M)
    for step in range(8, n // 16):
        h += mix(data, 16 * step, 16 * (step - 8) + 3)
    return avalanche((h + mix(data, n - 16, 136 - 17)) & M)


def accumulate(sums, data, at, secret):
    for lane in range(8):
        value = r64(data, at + 8 * lane)
        keyed = value ^ r64(SECRET, secret + 8 * lane)
        sums[lane ^ 1] = (sums[lane ^ 1] + value) & M
        sums[lane] = (sums[lane] + (keyed & 0xFFFFFFFF) * (keyed >> 32)) & M


def long(data):
    n = len(data)
    sums = [P32_3, P64_1, P64_2, P64_3, P64_4, P32_2, P64_5, P32_1]
    for stripe in range((n - 1) // 64):
        accumulate(sums, data, 64 * stripe, 8 * (stripe % 16))
        if stripe % 16 == 15:
            for lane in range(8):
                h = sums[lane]
                sums[lane] = (h ^ (h >> 47) ^ r64(SECRET, 128 + 8 * lane)) * P32_1 & M
    accumulate(sums, data, n - 64, 192 - 64 - 7)
    h = n * P64_1
    for pair in range(4):
        at = 11 + 16 * pair
        h += fold(sums[2 * pair] ^ r64(SECRET, at), sums[2 * pair + 1] ^ r64(SECRET, at + 8))
    return avalanche(h & M)


def hash(data):
    return upto_16(data) if len(data) <= 16 else upto_240(data) if len(data) <= 240 else long(data)
