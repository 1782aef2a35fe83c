//! System calls as `strace -f -y -xx` wrote them down.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every call that changes a file or a name, makes something durable, or could do either behind the model's back.
const CALLS: &str = "open,openat,openat2,creat,write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,sync,syncfs,\
    sync_file_range,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,truncate,ftruncate,fallocate,\
    link,linkat,symlink,symlinkat,lseek,mmap,io_uring_setup,copy_file_range,sendfile,splice,ioctl";

/// One call. It took effect somewhere between two lines of the trace.
#[derive(Debug)]
pub struct Call {
    pub name: String,
    pub args: Vec<String>,
    /// `None` when the process died in it.
    pub result: Option<i64>,
    pub begun: usize,
    pub ended: usize,
}

impl Call {
    /// The path of the file that argument `at`, a descriptor, is open on.
    pub fn descriptor(&self, at: usize) -> Option<PathBuf> {
        let (_, path) = self.args.get(at)?.split_once('<')?;
        let path = path.strip_suffix("(deleted)").unwrap_or(path).strip_suffix('>')?;
        Some(PathBuf::from(String::from_utf8(unescape(path)).ok()?))
    }

    /// The bytes of argument `at`, a string.
    pub fn bytes(&self, at: usize) -> Vec<u8> {
        let quoted = self.args[at].strip_prefix('"').and_then(|arg| arg.strip_suffix('"'));
        unescape(quoted.unwrap_or_else(|| panic!("no whole string: {} in {}", self.args[at], self.name)))
    }

    /// The path that argument `at` names, relative to the directory of argument `dir` if it has one.
    pub fn path(&self, dir: Option<usize>, at: usize) -> PathBuf {
        let path = PathBuf::from(String::from_utf8(self.bytes(at)).unwrap());
        match dir.and_then(|dir| self.descriptor(dir)) {
            Some(dir) => dir.join(path),
            None => path,
        }
    }

    pub fn number(&self, at: usize) -> u64 {
        self.args[at].parse().unwrap_or_else(|_| panic!("no number: {} in {}", self.args[at], self.name))
    }

    pub fn has_flag(&self, flag: &str) -> bool {
        self.args.iter().any(|arg| arg.split('|').any(|found| found == flag))
    }
}

/// Whether this machine can record; says so when it cannot.
pub fn can_record() -> bool {
    let found = Command::new("strace").args(["-qq", "-e", "trace=none", "true"]).status();
    let can = found.is_ok_and(|status| status.success());
    if !can {
        // The one thing that a test of lost power needs of the machine.
        eprintln!("SKIPPED: strace is not there or may not trace; install it to lose power in tests");
        assert!(std::env::var_os("MILLPOND_NEEDS_STRACE").is_none(), "strace is needed here");
    }
    can
}

/// Runs `command` and appends its calls to `calls`; `set` prepares its environment.
pub fn record(out: &Path, command: &[&str], set: &[(&str, String)], calls: &mut Vec<Call>) {
    let trace = format!("trace={CALLS}");
    let status = Command::new("strace")
        .args(["-f", "-qq", "-y", "-xx", "-s", "67108864", "-e", &trace, "-e", "signal=none", "-o"])
        .arg(out)
        .args(command)
        .envs(set.iter().map(|(name, value)| (*name, value)))
        .stdout(std::process::Stdio::null())
        .status();
    status.unwrap();
    let text = std::fs::read_to_string(out).unwrap();
    parse(&text, calls);
}

fn parse(text: &str, calls: &mut Vec<Call>) {
    let first = calls.last().map_or(0, |call| call.ended.max(call.begun) + 1);
    let mut unfinished: HashMap<&str, (usize, String)> = HashMap::new();
    let mut last = first;
    for (number, line) in (first..).zip(text.lines()) {
        last = number;
        let (thread, rest) = line.split_once(' ').unwrap();
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            unfinished.insert(thread, (number, begun.to_owned()));
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((begun, mut whole)) = unfinished.remove(thread) else { continue };
            whole += resumed.split_once(" resumed>").unwrap().1;
            calls.extend(call(&whole, begun, number));
        } else {
            calls.extend(call(rest, number, number));
        }
    }
    // A process that died in a call may have done some of it.
    calls.extend(unfinished.into_values().filter_map(|(begun, text)| call(&text, begun, last + 1)));
    calls.sort_by_key(|call| call.begun);
}

/// Reads `name(argument, argument) = result`; `None` for a call that failed, and for what is none.
fn call(text: &str, begun: usize, ended: usize) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return None;
    }
    let (args, result) = match rest.rsplit_once(" = ") {
        Some((args, result)) => (args.trim_end().strip_suffix(')').unwrap_or(args), Some(result)),
        None => (rest, None),
    };
    let result = result.map(|result| {
        let end =
            result.bytes().position(|byte| !(byte.is_ascii_digit() || byte == b'-')).unwrap_or(result.len());
        // An address is no result that anybody asks for.
        result[..end].parse::<i64>().unwrap_or(0)
    });
    if result.is_some_and(|result| result < 0) {
        return None;
    }
    let args = args.split(", ").map(|arg| arg.trim_end_matches(',').to_owned()).collect();
    Some(Call { name: name.to_owned(), args, result, begun, ended })
}

/// `\x6c\x6f` as bytes.
fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let digit =
        |byte: u8| (byte as char).to_digit(16).unwrap_or_else(|| panic!("not hexadecimal: {text}")) as u8;
    bytes.chunks(4).map(|escape| digit(escape[2]) << 4 | digit(escape[3])).collect()
}

#[test]
fn a_call_that_others_interrupt_is_put_together() {
    let text = "7 write(3<\\x2f\\x61>, \"\\x41\\x42\", 2 <unfinished ...>\n8 fsync(4<\\x2f\\x62>) = 0\n\
                7 <... write resumed>) = 2\n8 unlink(\"\\x2f\\x61\") = -1 ENOENT (No such file)\n7 fsync(3<\\x2f>";
    let mut calls = Vec::new();
    parse(&format!("{text} <unfinished ...>\n"), &mut calls);
    let seen: Vec<_> = calls.iter().map(|call| (&*call.name, call.result, call.begun, call.ended)).collect();
    assert_eq!(seen, [("write", Some(2), 0, 2), ("fsync", Some(0), 1, 1), ("fsync", None, 4, 5)]);
    assert_eq!((calls[0].descriptor(0).unwrap(), calls[0].bytes(1)), (PathBuf::from("/a"), b"AB".to_vec()));
}
