//! A disk that knows what was synced: what is durable, and every change since, which a power cut may keep, lose
//! or tear.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// What is written at once or not at all.
pub const SECTOR: usize = 512;

/// A file or directory, by its place in the table of all.
pub type NodeId = usize;

/// Everything in a tree of directories: bytes of files, `None` for directories.
pub type Image = BTreeMap<String, Option<Arc<Vec<u8>>>>;

#[derive(Clone, Debug)]
enum Node {
    File(Arc<Vec<u8>>),
    Dir(BTreeMap<String, NodeId>),
}

/// A change of a file or of the names in a directory.
#[derive(Clone, Debug)]
pub enum Change {
    Write { file: NodeId, at: usize, bytes: Arc<Vec<u8>> },
    Length { file: NodeId, length: usize },
    Name { dir: NodeId, name: String, node: Option<NodeId> },
    Rename { from: (NodeId, String), to: (NodeId, String), node: NodeId },
}

impl Change {
    fn is_of(&self, node: NodeId) -> bool {
        match self {
            Change::Write { file, .. } | Change::Length { file, .. } => *file == node,
            Change::Name { dir, .. } => *dir == node,
            Change::Rename { from, to, .. } => from.0 == node || to.0 == node,
        }
    }

    fn is_name(&self) -> bool {
        matches!(self, Change::Name { .. } | Change::Rename { .. })
    }
}

/// A change that no sync has made durable yet.
#[derive(Clone, Debug)]
pub struct Pending {
    pub change: Change,
    /// The line of the trace at which its call had returned.
    pub ended: usize,
}

/// How much of a pending change a power cut leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Nothing,
    Whole,
    /// Only the sectors whose bit is set; those from the 64th on go with the last bit.
    Sectors(u64),
    /// The length, and zeros in place of what was appended.
    LengthOnly,
}

/// What a sync makes durable besides what it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// What POSIX promises: the bytes and length of this file, or the names in this directory, and nothing else.
    Posix,
    /// As on ext4: names change in order, and any sync makes all earlier ones durable.
    Journal,
}

/// The disk at one moment of a recorded run.
#[derive(Clone, Debug)]
pub struct Disk {
    nodes: Vec<Node>,
    /// The names as the running system sees them.
    live: BTreeMap<NodeId, BTreeMap<String, NodeId>>,
    pub pending: Vec<Pending>,
    pub rules: Rules,
}

const ROOT: NodeId = 0;

impl Disk {
    /// A disk with `image` on it, all of it durable.
    pub fn with(image: &Image, rules: Rules) -> Self {
        let nodes = vec![Node::Dir(BTreeMap::new())];
        let live = BTreeMap::from([(ROOT, BTreeMap::new())]);
        let mut disk = Disk { nodes, live, pending: Vec::new(), rules };
        for (path, bytes) in image {
            let node = match bytes {
                Some(bytes) => disk.add(Node::File(bytes.clone())),
                None => disk.add(Node::Dir(BTreeMap::new())),
            };
            let (dir, name) = disk.place(Path::new(path));
            disk.rename_live(dir, name, Some(node), 0);
        }
        disk.sync_all();
        disk
    }

    fn add(&mut self, node: Node) -> NodeId {
        let id = self.nodes.len();
        if matches!(node, Node::Dir(_)) {
            self.live.insert(id, BTreeMap::new());
        }
        self.nodes.push(node);
        id
    }

    /// The node that `path` names for the running system.
    pub fn find(&self, path: &Path) -> Option<NodeId> {
        path.components()
            .try_fold(ROOT, |dir, name| self.live.get(&dir)?.get(name.as_os_str().to_str()?).copied())
    }

    fn place(&self, path: &Path) -> (NodeId, String) {
        let dir = self.find(path.parent().unwrap());
        let dir = dir.unwrap_or_else(|| panic!("{} has no directory in the model", path.display()));
        (dir, path.file_name().unwrap().to_str().unwrap().to_owned())
    }

    fn rename_live(&mut self, dir: NodeId, name: String, node: Option<NodeId>, ended: usize) {
        let names = self.live.get_mut(&dir).unwrap();
        match node {
            Some(node) => names.insert(name.clone(), node),
            None => names.remove(&name),
        };
        self.pending.push(Pending { change: Change::Name { dir, name, node }, ended });
    }

    pub fn create(&mut self, path: &Path, is_dir: bool, ended: usize) {
        let node =
            self.add(if is_dir { Node::Dir(BTreeMap::new()) } else { Node::File(Arc::new(Vec::new())) });
        let (dir, name) = self.place(path);
        self.rename_live(dir, name, Some(node), ended);
    }

    pub fn remove(&mut self, path: &Path, ended: usize) {
        let (dir, name) = self.place(path);
        self.rename_live(dir, name, None, ended);
    }

    pub fn rename(&mut self, from: &Path, to: &Path, ended: usize) {
        let node = self.find(from).unwrap();
        let (from, to) = (self.place(from), self.place(to));
        self.live.get_mut(&from.0).unwrap().remove(&from.1);
        self.live.get_mut(&to.0).unwrap().insert(to.1.clone(), node);
        self.pending.push(Pending { change: Change::Rename { from, to, node }, ended });
    }

    pub fn write(&mut self, file: NodeId, at: usize, bytes: Vec<u8>, ended: usize) {
        let change = Change::Write { file, at, bytes: Arc::new(bytes) };
        self.pending.push(Pending { change, ended });
    }

    pub fn set_length(&mut self, file: NodeId, length: usize, ended: usize) {
        self.pending.push(Pending { change: Change::Length { file, length }, ended });
    }

    /// Makes durable what had been done to `node` when the sync began.
    pub fn sync(&mut self, node: NodeId, begun: usize) {
        let journal = self.rules == Rules::Journal;
        let synced = |pending: &Pending| {
            let named = pending.change.is_of(node) || (journal && pending.change.is_name());
            named && pending.ended <= begun
        };
        let (done, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending).into_iter().partition(synced);
        done.iter().for_each(|pending| apply(&mut self.nodes, &pending.change, Kept::Whole));
        self.pending = left;
    }

    fn sync_all(&mut self) {
        let all = std::mem::take(&mut self.pending);
        all.iter().for_each(|pending| apply(&mut self.nodes, &pending.change, Kept::Whole));
    }

    /// What is on the disk after a power cut that left `kept` of the pending changes.
    pub fn after(&self, kept: &[Kept]) -> Image {
        assert_eq!(kept.len(), self.pending.len());
        let mut nodes = self.nodes.clone();
        for (pending, kept) in self.pending.iter().zip(kept) {
            apply(&mut nodes, &pending.change, *kept);
        }
        let mut image = Image::new();
        let mut open = vec![(ROOT, String::new())];
        while let Some((dir, path)) = open.pop() {
            let Node::Dir(names) = &nodes[dir] else { panic!("{path} is no directory") };
            for (name, node) in names {
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                match &nodes[*node] {
                    Node::File(bytes) => drop(image.insert(path, Some(bytes.clone()))),
                    Node::Dir(_) => {
                        image.insert(path.clone(), None);
                        open.push((*node, path));
                    }
                }
            }
        }
        image
    }

    /// So many sectors a pending change touches, of a file that it writes to.
    pub fn sectors(&self, pending: &Pending) -> usize {
        match &pending.change {
            Change::Write { at, bytes, .. } => (at + bytes.len()).div_ceil(SECTOR) - at / SECTOR,
            _ => 1,
        }
    }

    /// Whether a pending write makes its file longer than it durably is.
    pub fn extends(&self, pending: &Pending) -> bool {
        let Change::Write { file, at, bytes } = &pending.change else { return false };
        matches!(&self.nodes[*file], Node::File(durable) if at + bytes.len() > durable.len())
    }
}

fn apply(nodes: &mut [Node], change: &Change, kept: Kept) {
    if kept == Kept::Nothing {
        return;
    }
    let mut name = |dir: NodeId, name: &String, node: Option<NodeId>| {
        let Node::Dir(names) = &mut nodes[dir] else { panic!("names in a file") };
        match node {
            Some(node) => names.insert(name.clone(), node),
            None => names.remove(name),
        };
    };
    match change {
        Change::Name { dir, name: called, node } => name(*dir, called, *node),
        Change::Rename { from, to, node } => {
            name(from.0, &from.1, None);
            name(to.0, &to.1, Some(*node));
        }
        Change::Write { file, at, bytes } => write(file_of(nodes, *file), *at, bytes, kept),
        Change::Length { file, length } => file_of(nodes, *file).resize(*length, 0),
    }
}

fn file_of(nodes: &mut [Node], file: NodeId) -> &mut Vec<u8> {
    let Node::File(bytes) = &mut nodes[file] else { panic!("bytes in a directory") };
    Arc::make_mut(bytes)
}

fn write(file: &mut Vec<u8>, at: usize, bytes: &[u8], kept: Kept) {
    let end = at + bytes.len();
    if kept == Kept::LengthOnly {
        return file.resize(file.len().max(end), 0);
    }
    let mut from = at;
    while from < end {
        let to = end.min((from / SECTOR + 1) * SECTOR);
        let sector = (from / SECTOR - at / SECTOR).min(63);
        if kept == Kept::Whole || matches!(kept, Kept::Sectors(set) if set >> sector & 1 == 1) {
            file.resize(file.len().max(to), 0);
            file[from..to].copy_from_slice(&bytes[from - at..to - at]);
        }
        from = to;
    }
}

#[test]
fn only_what_was_synced_is_sure_to_be_there() {
    let image = |disk: &Disk, kept| disk.after(&vec![kept; disk.pending.len()]);
    let mut disk = Disk::with(&Image::new(), Rules::Posix);
    disk.create(Path::new("dir"), true, 1);
    disk.create(Path::new("dir/file"), false, 2);
    let (dir, file) = (disk.find(Path::new("dir")).unwrap(), disk.find(Path::new("dir/file")).unwrap());
    disk.write(file, 0, vec![7; 1_200], 3);
    disk.sync(file, 4);
    assert!(image(&disk, Kept::Nothing).is_empty(), "names are durable only with their directory");
    disk.sync(dir, 5);
    disk.sync(ROOT, 6);
    assert_eq!(image(&disk, Kept::Nothing)["dir/file"].as_ref().unwrap().len(), 1_200);
    disk.write(file, 500, vec![8; 600], 7);
    disk.sync(file, 6);
    let torn = image(&disk, Kept::Sectors(0b101));
    let torn = torn["dir/file"].as_ref().unwrap();
    assert_eq!((torn[499], torn[511], torn[512], torn[1_023], torn[1_024], torn[1_100]), (7, 8, 7, 7, 8, 7));
    disk.rename(Path::new("dir/file"), Path::new("dir/new"), 8);
    let lost = disk.after(&[Kept::Whole, Kept::Nothing]);
    assert!(lost.contains_key("dir/file") && !lost.contains_key("dir/new"));
    assert!(image(&disk, Kept::Whole).contains_key("dir/new"));
}
