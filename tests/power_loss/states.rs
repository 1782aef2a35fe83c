//! From a recording to the states that a power cut may leave.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::disk::{Change, Disk, Image, Kept, Pending};
use crate::job::Told;
use crate::trace::Call;

/// What happens, in the order of the trace.
#[derive(Debug)]
enum Happens<'a> {
    /// A change or what is told; from here on it may have taken effect.
    Begins(&'a Call),
    /// A sync has returned.
    Synced(&'a Call),
}

/// A recorded run on a disk.
pub struct Recording {
    /// The directory that the model knows; everything outside is none of its business.
    root: PathBuf,
    /// The file that the world is told through.
    told: PathBuf,
    calls: Vec<Call>,
}

/// A moment at which power may be lost.
pub struct Moment<'a> {
    pub number: usize,
    pub disk: &'a Disk,
    /// So much had been told.
    pub told: &'a [Told],
}

fn is_sync(call: &Call) -> bool {
    matches!(&*call.name, "fsync" | "fdatasync")
}

impl Recording {
    pub fn new(root: &Path, told: &Path, calls: Vec<Call>) -> Self {
        Recording { root: root.to_owned(), told: told.to_owned(), calls }
    }

    fn inside(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(&self.root).ok().map(Path::to_owned)
    }

    /// The roles of all syncs: what was synced, with `N` for numbers, and how often.
    pub fn syncs(&self) -> BTreeMap<String, usize> {
        let mut roles = BTreeMap::new();
        for call in self.calls.iter().filter(|call| is_sync(call) && call.result.is_some()) {
            if let Some(path) = self.inside(&call.descriptor(0).unwrap()) {
                *roles.entry(role(&path)).or_default() += 1;
            }
        }
        roles
    }

    /// Plays the run on `disk` and calls `at` at every moment. Syncs that `ignores` names, by role and number from 0
    /// on, do nothing. Returns the disk at the end and all that was told.
    pub fn play(
        &self,
        mut disk: Disk,
        ignores: &dyn Fn(&str, usize) -> bool,
        at: &mut dyn FnMut(Moment<'_>),
    ) -> (Disk, Vec<Told>) {
        let mut happens: Vec<(usize, Happens<'_>)> = Vec::new();
        for call in &self.calls {
            match is_sync(call) {
                // One that the process died in promised nothing to anybody.
                true if call.result.is_some() => happens.push((call.ended, Happens::Synced(call))),
                true => {}
                false => happens.push((call.begun, Happens::Begins(call))),
            }
        }
        happens.sort_by_key(|(line, _)| *line);
        let (mut told, mut positions, mut syncs) = (Vec::new(), BTreeMap::new(), 0);
        at(Moment { number: 0, disk: &disk, told: &told });
        for (number, (_, happening)) in (1..).zip(happens) {
            let changed = match happening {
                Happens::Begins(call) => self.begin(call, &mut disk, &mut told, &mut positions),
                Happens::Synced(call) => match self.inside(&call.descriptor(0).unwrap()) {
                    None => false,
                    Some(path) => {
                        let node = disk.find(&path);
                        let node =
                            node.unwrap_or_else(|| panic!("{} is synced and not there", path.display()));
                        if !ignores(&role(&path), syncs) {
                            disk.sync(node, call.begun);
                        }
                        syncs += 1;
                        true
                    }
                },
            };
            if changed {
                at(Moment { number, disk: &disk, told: &told });
            }
        }
        (disk, told)
    }

    /// Begins a call; `false` when it is of no interest.
    fn begin(
        &self,
        call: &Call,
        disk: &mut Disk,
        told: &mut Vec<Told>,
        positions: &mut BTreeMap<usize, usize>,
    ) -> bool {
        match &*call.name {
            "open" => self.open(call, &call.path(None, 0), disk, positions),
            "openat" => self.open(call, &call.path(Some(0), 1), disk, positions),
            "mkdir" => self.changes(&call.path(None, 0), |path| disk.create(path, true, call.ended)),
            "mkdirat" => self.changes(&call.path(Some(0), 1), |path| disk.create(path, true, call.ended)),
            "unlink" | "rmdir" => self.changes(&call.path(None, 0), |path| disk.remove(path, call.ended)),
            "unlinkat" => self.changes(&call.path(Some(0), 1), |path| disk.remove(path, call.ended)),
            "rename" => {
                let to = call.path(None, 1);
                self.changes(&call.path(None, 0), |from| {
                    disk.rename(from, &self.inside(&to).unwrap(), call.ended);
                })
            }
            "write" | "pwrite64" => self.write(call, disk, told, positions),
            "ftruncate" => self.changes(&call.descriptor(0).unwrap(), |path| {
                let file = disk.find(path).unwrap();
                disk.set_length(file, call.number(1) as usize, call.ended);
            }),
            // Asks the kernel to begin writing: makes nothing durable.
            "sync_file_range" | "fsync" | "fdatasync" => false,
            _ => self.refuse_unknown(call),
        }
    }

    fn changes(&self, path: &Path, change: impl FnOnce(&Path)) -> bool {
        self.inside(path).map(|path| change(&path)).is_some()
    }

    fn open(
        &self,
        call: &Call,
        path: &Path,
        disk: &mut Disk,
        positions: &mut BTreeMap<usize, usize>,
    ) -> bool {
        let Some(path) = self.inside(path) else { return false };
        assert!(!call.has_flag("O_APPEND"), "the model does not know appending: {call:?}");
        let mut changed = false;
        if call.has_flag("O_CREAT") && disk.find(&path).is_none() {
            disk.create(&path, false, call.ended);
            changed = true;
        }
        if let Some(file) = disk.find(&path) {
            if call.has_flag("O_TRUNC") {
                disk.set_length(file, 0, call.ended);
                changed = true;
            }
            if call.has_flag("O_WRONLY") || call.has_flag("O_RDWR") {
                positions.insert(file, 0);
            }
        }
        changed
    }

    fn write(
        &self,
        call: &Call,
        disk: &mut Disk,
        told: &mut Vec<Told>,
        positions: &mut BTreeMap<usize, usize>,
    ) -> bool {
        let Some(path) = call.descriptor(0) else { return false };
        if path == self.told {
            told.push(Told::read(&String::from_utf8(call.bytes(1)).unwrap()));
            return true;
        }
        let Some(path) = self.inside(&path) else { return false };
        let file =
            disk.find(&path).unwrap_or_else(|| panic!("{} is written to and not there", path.display()));
        let mut bytes = call.bytes(1);
        bytes.truncate(call.result.map_or(bytes.len(), |written| written as usize));
        let at = match &*call.name {
            "pwrite64" => call.number(3) as usize,
            _ => {
                let position = positions.get_mut(&file).expect("it was opened");
                *position += bytes.len();
                *position - bytes.len()
            }
        };
        disk.write(file, at, bytes, call.ended);
        true
    }

    /// The model must know every call that changes what it models.
    fn refuse_unknown(&self, call: &Call) -> bool {
        let inside = |at: usize| call.descriptor(at).is_some_and(|path| self.inside(&path).is_some());
        let harmless = match &*call.name {
            "mmap" => !(call.has_flag("MAP_SHARED") && inside(4)),
            // From the store to somewhere else.
            "copy_file_range" => !inside(2),
            "lseek" | "ioctl" => !inside(0) || call.args.get(1).is_some_and(|arg| arg == "0"),
            _ => false,
        };
        assert!(harmless, "the model does not know this call: {call:?}");
        false
    }
}

/// `store/epochs/3/db` is `store/epochs/N/db`.
fn role(path: &Path) -> String {
    let part = |part: &std::ffi::OsStr| {
        let part = part.to_str().unwrap();
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 { format!("N{}", &part[digits..]) } else { part.to_owned() }
    };
    let role: Vec<String> = path.components().map(|name| part(name.as_os_str())).collect();
    if role.is_empty() { ".".to_owned() } else { role.join("/") }
}

/// The choices of what a power cut leaves.
pub struct Choices {
    /// Whether to leave out each pair of changes too.
    pub pairs: bool,
    /// So many random ones per moment.
    pub random: usize,
    pub seed: u64,
}

impl Choices {
    /// What power loss at this moment may leave of what is pending; the first is nothing, the second everything.
    pub fn at(&self, moment: &Moment<'_>) -> Vec<Vec<Kept>> {
        let disk = moment.disk;
        let all = vec![Kept::Whole; disk.pending.len()];
        let none = vec![Kept::Nothing; disk.pending.len()];
        let with = |base: &[Kept], at: usize, kept: Kept| {
            let mut choice = base.to_vec();
            choice[at] = kept;
            choice
        };
        let mut choices = vec![none.clone(), all.clone()];
        let single = worth_trying(&disk.pending);
        for &at in &single {
            choices.push(with(&all, at, Kept::Nothing));
            choices.push(with(&none, at, Kept::Whole));
            let pending = &disk.pending[at];
            if disk.extends(pending) {
                choices.push(with(&all, at, Kept::LengthOnly));
                choices.push(with(&none, at, Kept::LengthOnly));
            }
            if disk.sectors(pending) > 1 {
                for sectors in [1, !1, 0x5555_5555_5555_5555] {
                    choices.push(with(&all, at, Kept::Sectors(sectors)));
                    choices.push(with(&none, at, Kept::Sectors(sectors)));
                }
            }
        }
        if self.pairs {
            for (first, &one) in single.iter().enumerate() {
                for &other in &single[first + 1..] {
                    choices.push(with(&with(&all, one, Kept::Nothing), other, Kept::Nothing));
                    choices.push(with(&with(&none, one, Kept::Whole), other, Kept::Whole));
                }
            }
        }
        let mut random = Random(self.seed ^ (moment.number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        choices.extend((0..self.random).map(|_| random.choice(disk)));
        if disk.rules == crate::disk::Rules::Journal {
            choices.retain(|choice| names_in_order(disk, choice));
        }
        choices
    }
}

/// Of many writes to one place only the last few are tried one by one.
fn worth_trying(pending: &[Pending]) -> Vec<usize> {
    let mut later: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    let mut worth = Vec::new();
    for (at, pending) in pending.iter().enumerate().rev() {
        if let Change::Write { file, at: place, .. } = &pending.change {
            let seen = later.entry((*file, *place)).or_default();
            *seen += 1;
            if *seen > 2 {
                continue;
            }
        }
        worth.push(at);
    }
    worth.reverse();
    worth
}

/// A journal keeps names up to some moment and none after it.
fn names_in_order(disk: &Disk, choice: &[Kept]) -> bool {
    let names = disk
        .pending
        .iter()
        .zip(choice)
        .filter(|(pending, _)| !matches!(pending.change, Change::Write { .. }));
    let kept: Vec<bool> = names.map(|(_, kept)| *kept != Kept::Nothing).collect();
    kept.is_sorted_by(|before, after| *before || !after)
}

/// xorshift64*.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn choice(&mut self, disk: &Disk) -> Vec<Kept> {
        // Some cuts lose nearly everything, some nearly nothing.
        let keeps = self.next() % 5;
        let mut one = |pending: &Pending| match self.next() % 4 {
            part if part >= keeps => Kept::Nothing,
            _ if disk.sectors(pending) > 1 && self.next() % 3 == 0 => Kept::Sectors(self.next()),
            _ if disk.extends(pending) && self.next() % 8 == 0 => Kept::LengthOnly,
            _ => Kept::Whole,
        };
        disk.pending.iter().map(&mut one).collect()
    }
}

/// A number that tells images apart.
pub fn digest(image: &Image) -> u64 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for (path, bytes) in image {
        hash.update(path.as_bytes());
        match bytes {
            None => hash.update(b"/"),
            Some(bytes) => {
                hash.update(&(bytes.len() as u64).to_le_bytes());
                hash.update(bytes);
            }
        }
    }
    hash.digest()
}

/// Puts an image below an empty directory.
pub fn materialise(image: &Image, root: &Path) {
    // A path sorts after the directory that it is in.
    for (path, bytes) in image {
        let path = root.join(path);
        match bytes {
            Some(bytes) => std::fs::write(path, &**bytes).unwrap(),
            None => std::fs::create_dir(path).unwrap(),
        }
    }
}

/// What is below a directory.
pub fn image_of(root: &Path) -> Image {
    let mut image = Image::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                image.insert(name, None);
                open.push(path);
            } else {
                image.insert(name, Some(std::fs::read(&path).unwrap().into()));
            }
        }
    }
    image
}
