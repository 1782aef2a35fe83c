//! Vectors of what is kept for long grow by a quarter: doubling would leave half of a large one unused.

/// Up to this many bytes a vector doubles.
const DOUBLED_BYTES: usize = 4 << 10;

/// Makes room for `more` elements.
#[inline]
fn make_room<T>(vec: &mut Vec<T>, more: usize) {
    if vec.capacity() - vec.len() < more {
        grow(vec, more);
    }
}

#[cold]
fn grow<T>(vec: &mut Vec<T>, more: usize) {
    let capacity = vec.capacity();
    let step = if capacity * size_of::<T>() < DOUBLED_BYTES { capacity } else { capacity / 4 };
    vec.reserve_exact(step.max(more).max(4));
}

/// Appends one element.
#[inline]
pub(crate) fn push<T>(vec: &mut Vec<T>, element: T) {
    make_room(vec, 1);
    vec.push(element);
}

/// Appends copies of elements.
#[inline]
pub(crate) fn extend<T: Copy>(vec: &mut Vec<T>, elements: &[T]) {
    make_room(vec, elements.len());
    vec.extend_from_slice(elements);
}

/// Appends bytes. Eight of them, what most numbers take, need no call.
#[inline]
pub(crate) fn append_bytes(vec: &mut Vec<u8>, bytes: &[u8]) {
    match <&[u8; 8]>::try_from(bytes) {
        Ok(eight) => vec.extend_from_slice(eight),
        Err(_) => vec.extend_from_slice(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_vector_has_at_most_a_quarter_of_its_elements_to_spare() {
        let mut vec = Vec::new();
        let mut moves = 0;
        for element in 0..100_000_u64 {
            let before = vec.capacity();
            push(&mut vec, element);
            moves += usize::from(vec.capacity() != before);
            assert!(vec.capacity() <= 1024 + vec.len() * 5 / 4, "{} of {}", vec.len(), vec.capacity());
        }
        assert!(moves < 40, "moved {moves} times");
        extend(&mut vec, &[1; 100_000]);
        assert_eq!((vec.len(), vec[100_000]), (200_000, 1));
        assert!(vec.capacity() <= 250_000);
    }
}
