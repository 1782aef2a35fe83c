//! Data inside of data: what lets an operator keep records of the job's types in structures of its own.

use rkyv::rancor::{Fallible, Source};
use rkyv::ser::{Allocator, Writer};
use rkyv::vec::{ArchivedVec, VecResolver};
use rkyv::{Archive, Deserialize, Place, Serialize};

use crate::record::data::{Data, DataBuffer};

/// A record that is archived as the bytes of its own archive, so that any [`Data`] can be a part of other
/// data without a bound on its archived type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Nested<T>(pub(crate) T);

/// Where the bytes are, and how many.
pub(crate) struct NestedResolver {
    bytes: VecResolver,
    length: usize,
}

impl<T: Data> Archive for Nested<T> {
    type Archived = ArchivedVec<u8>;
    type Resolver = NestedResolver;

    fn resolve(&self, resolver: NestedResolver, out: Place<Self::Archived>) {
        ArchivedVec::resolve_from_len(resolver.length, resolver.bytes, out);
    }
}

impl<T: Data, S: Fallible + Allocator + Writer + ?Sized> Serialize<S> for Nested<T>
where
    S::Error: Source,
{
    fn serialize(&self, serializer: &mut S) -> Result<NestedResolver, S::Error> {
        let mut buffer = DataBuffer::default();
        self.0.encode(&mut buffer).map_err(S::Error::new)?;
        let bytes = buffer.as_bytes();
        let length = bytes.len();
        Ok(NestedResolver { bytes: ArchivedVec::<u8>::serialize_from_slice(bytes, serializer)?, length })
    }
}

impl<T: Data, D: Fallible + ?Sized> Deserialize<Nested<T>, D> for ArchivedVec<u8>
where
    D::Error: Source,
{
    fn deserialize(&self, _: &mut D) -> Result<Nested<T>, D::Error> {
        T::decode(self.as_slice(), &mut DataBuffer::default()).map(Nested).map_err(D::Error::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survives<T: Data + PartialEq + std::fmt::Debug>(value: T) {
        // The bound that matters: a structure around a type of which only `Data` is known.
        let structure = vec![(7u64, Some(Nested(value.clone()))), (8, None)];
        let mut buffer = DataBuffer::default();
        structure.encode(&mut buffer).unwrap();
        let bytes = buffer.as_bytes().to_vec();
        assert_eq!(Vec::<(u64, Option<Nested<T>>)>::decode(&bytes, &mut buffer).unwrap(), structure);
        for cut in 0..bytes.len() {
            drop(Vec::<(u64, Option<Nested<T>>)>::decode(&bytes[..cut], &mut buffer));
        }
    }

    #[test]
    fn any_data_can_be_a_part_of_other_data() {
        survives(17u64);
        survives("text of some length that is not inline".to_owned());
        survives((vec![1u8, 2], Some(String::new())));
    }
}
