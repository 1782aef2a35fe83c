//! Archived maps and sets, written: trees of nodes of five entries.

use serde_json::Value;

use super::{Image, Writer};
use crate::error::Result;
use crate::format::shown::schema::Type;
use crate::format::shown::value::{MAP_NODE_ENTRIES, MapNode, UNIT};

/// A node, and the sizes that it has with its rest.
pub(super) struct MapLayout {
    node: MapNode,
    align: usize,
    leaf: usize,
    inner: usize,
}

impl MapLayout {
    pub(super) fn of(key: &Type, value: Option<&Type>) -> Self {
        let value = value.unwrap_or(&UNIT);
        let node = MapNode::of(key, value);
        let align = key.align.max(value.align).max(4);
        let size = |rest: usize| (node.rest + rest).next_multiple_of(align);
        MapLayout { align, leaf: size(4), inner: size(4 * (MAP_NODE_ENTRIES + 1)), node }
    }
}

impl<'t> Writer<'t> {
    /// Writes a node with `entries` and everything below it; returns its place, `None` for no entries.
    ///
    /// An inner node has exactly five entries. What is more is shared out evenly before, between and after them, more of
    /// it before: what is before the first entry of an inner node is never empty, on which readers rely.
    pub(super) fn node(
        &mut self,
        layout: &MapLayout,
        types: (&'t Type, Option<&'t Type>),
        entries: &[(Value, Value)],
    ) -> Result<Option<usize>> {
        if entries.is_empty() {
            return Ok(None);
        }
        let below = entries.len().saturating_sub(MAP_NODE_ENTRIES);
        if below == 0 {
            let mut image = Image::zeroed(layout.leaf);
            image.set(layout.node.rest, &(entries.len() as u32).to_le_bytes());
            self.own_entries(&mut image, layout, types, &entries.iter().collect::<Vec<_>>())?;
            return self.place(&image, layout.align).map(Some);
        }
        let mut image = Image::zeroed(layout.inner);
        image.bytes[0] = 1;
        let (mut rest, mut own) = (entries, Vec::new());
        for child in 0..=MAP_NODE_ENTRIES {
            let more = usize::from(child < below % (MAP_NODE_ENTRIES + 1));
            let (before, after) = rest.split_at(below / (MAP_NODE_ENTRIES + 1) + more);
            let pointer = layout.node.rest + 4 * child;
            match self.node(layout, types, before)? {
                Some(to) => image.point(pointer, to),
                None => image.set(pointer, &1i32.to_le_bytes()),
            }
            rest = after;
            if let Some((entry, after)) = rest.split_first().filter(|_| child < MAP_NODE_ENTRIES) {
                own.push(entry);
                rest = after;
            }
        }
        self.own_entries(&mut image, layout, types, &own)?;
        self.place(&image, layout.align).map(Some)
    }

    fn own_entries(
        &mut self,
        image: &mut Image,
        layout: &MapLayout,
        (key_type, value_type): (&'t Type, Option<&'t Type>),
        entries: &[&(Value, Value)],
    ) -> Result<()> {
        let MapNode { keys, key_size, values, value_size, .. } = layout.node;
        for (at, (key, value)) in entries.iter().enumerate() {
            let step = format!("[{}]", super::shortened(key));
            let (key, value) = self.at(step, |writer| {
                let key = writer.value(key_type, key)?;
                let value = value_type.map(|of| writer.value(of, value)).transpose()?;
                Ok((key, value))
            })?;
            image.insert(keys + at * key_size, &key);
            if let Some(value) = value {
                image.insert(values + at * value_size, &value);
            }
        }
        Ok(())
    }
}
