//! A text that is made up, the same every time.

/// So many different words at most.
const VOCABULARY: f64 = 2_000_000.0;

/// About `bytes` of lines of words. How often a word occurs is inversely proportional to its rank, as in
/// natural text, and frequent words are short.
pub fn generate(bytes: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes + 256);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while text.len() < bytes {
        for _ in 0..4 + random(&mut state) % 16 {
            let uniform = (random(&mut state) >> 11) as f64 / (1_u64 << 53) as f64;
            push_word(VOCABULARY.powf(uniform) as u64, &mut text);
            text.push(b' ');
        }
        text.pop();
        text.push(b'\n');
    }
    text
}

/// The word of a rank: the lower, the shorter.
fn push_word(rank: u64, text: &mut Vec<u8>) {
    const CONSONANTS: &[u8; 16] = b"tnsrhldcmfpgwbvk";
    const VOWELS: &[u8; 4] = b"eaio";
    let mut rest = rank;
    loop {
        text.push(CONSONANTS[(rest % 16) as usize]);
        text.push(VOWELS[(rest / 16 % 4) as usize]);
        rest /= 64;
        if rest == 0 {
            break;
        }
    }
}

/// xorshift64*.
fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}
