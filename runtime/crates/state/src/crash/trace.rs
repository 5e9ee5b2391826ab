//! What a traced process did with the files below a directory: the output of `strace`, line by line, as steps of a
//! [`Disk`] and as the marks that the process left between them.

use std::{
    collections::HashMap,
    ffi::OsString,
    fmt, fs, mem,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

use super::{
    disk::{Disk, Step},
    look,
};

/// Every system call that can change a file, and what is needed to know which file that is. Those that are not understood are
/// among them: they must not be used.
pub const CALLS: &str = "open,openat,openat2,creat,close,dup,dup2,dup3,fcntl,lseek,mmap,io_uring_setup,\
    write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,copy_file_range,sendfile,splice,\
    fsync,fdatasync,sync,syncfs,sync_file_range,msync,\
    rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,symlinkat";

/// What a line of the trace means.
#[derive(Debug)]
pub enum Event {
    /// The disk has changed, or is on its way to.
    Step(Step),
    /// The process wrote this line to the file of its marks.
    Mark(String),
}

/// Reads the trace of a process.
#[derive(Debug)]
pub struct Tracer {
    root: PathBuf,
    marks: PathBuf,
    opened: Vec<Opened>,
    /// By descriptor.
    descriptors: HashMap<i64, usize>,
    /// The beginnings of calls that were under way when another thread did something, by thread, and how many changes a sync
    /// among them covers: those before it began.
    unfinished: HashMap<String, (String, usize)>,
}

#[derive(Debug)]
struct Opened {
    what: What,
    appends: bool,
    position: usize,
}

#[derive(Debug, Clone)]
enum What {
    /// Below the directory that is watched, or that itself.
    Dir(PathBuf),
    File(usize),
    Marks,
}

/// A call as it was printed.
struct Call<'a> {
    name: &'a str,
    arguments: &'a str,
    /// What it gave, if it did not fail.
    result: Option<i64>,
    /// How many changes it covers, if others were made while it was under way.
    covered: Option<usize>,
}

impl Tracer {
    /// Watches the directory `root`. Marks are lines of the file `marks`, which lies elsewhere.
    pub fn new(root: &Path, marks: &Path) -> Self {
        let (opened, descriptors, unfinished) = Default::default();
        Self { root: root.to_owned(), marks: marks.to_owned(), opened, descriptors, unfinished }
    }

    /// Reads the trace, and tells what the lines mean, one after the other. Whoever is told of a step lets the disk take it.
    pub fn read(mut self, trace: &Path, disk: &mut Disk, mut tell: impl FnMut(&mut Disk, Event)) {
        let trace = fs::read_to_string(trace).unwrap();
        let mut uncertain = Vec::new();
        for line in trace.lines() {
            let (thread, line) = line.split_once(' ').unwrap();
            let line = line.trim_start();
            if line.starts_with("+++") {
                continue;
            }
            if let Some(begin) = line.strip_suffix(" <unfinished ...>") {
                let call = Call::parse(begin);
                if call.name == "close" {
                    // Its number may be given to another file before the thread goes on.
                    self.descriptors.remove(&call.number());
                }
                let covered = self.covered(&call, disk);
                self.unfinished.insert(thread.to_owned(), (begin.to_owned(), covered));
                continue;
            }
            let (whole, covered) = match line.strip_prefix("<... ") {
                Some(line) => {
                    let (_, end) = line.split_once(" resumed>").unwrap();
                    let (begin, covered) = self.unfinished.remove(thread).unwrap();
                    (begin + end, Some(covered))
                }
                None => (line.replace(" <unfinished ...>", ""), None),
            };
            if whole.ends_with("= ?") {
                uncertain.push(whole);
                continue;
            }
            if let Some(event) = self.event(&Call { covered, ..Call::parse(&whole) }, disk) {
                tell(disk, event);
            }
        }
        uncertain.extend(mem::take(&mut self.unfinished).into_values().map(|(begin, _)| begin));
        self.settle(&uncertain, disk, tell);
    }

    /// Looks whether calls were carried out that were under way when the process ended. That syncs were is not assumed.
    fn settle(&mut self, uncertain: &[String], disk: &mut Disk, mut tell: impl FnMut(&mut Disk, Event)) {
        for call in uncertain {
            let found = look(&self.root);
            let mut call = Call { result: Some(0), ..Call::parse(call) };
            if disk.as_seen() == found || matches!(call.name, "fsync" | "fdatasync") {
                continue;
            }
            if let ("write" | "writev", Some(&What::File(file))) = (call.name, self.what(&call)) {
                // Perhaps only a part of it.
                let lengths = found.iter().filter(|(path, _)| disk.file(path) == Some(file));
                let length = lengths.filter_map(|(_, image)| Some(image.as_ref()?.length())).sum::<usize>();
                call.result = i64::try_from(length.saturating_sub(disk.length(file))).ok();
            }
            if let Some(event) = self.event(&call, disk) {
                tell(disk, event);
            }
        }
    }

    fn event(&mut self, call: &Call<'_>, disk: &Disk) -> Option<Event> {
        let is_sync = matches!(call.name, "fsync" | "fdatasync");
        let Some(result) = call.result else {
            return match self.what(call) {
                Some(What::File(file)) if is_sync => Some(Event::Step(Step::FailedSync { file: *file })),
                _ => None,
            };
        };
        let step = match call.name {
            "open" | "openat" => self.open(call, result, disk),
            "close" => {
                if call.covered.is_none() {
                    self.descriptors.remove(&call.number());
                }
                None
            }
            "fcntl" if !call.arguments.contains("F_DUPFD") => None,
            "dup" | "dup2" | "dup3" | "fcntl" => {
                match self.descriptors.get(&call.number()) {
                    Some(&opened) => self.descriptors.insert(result, opened),
                    None => self.descriptors.remove(&result),
                };
                None
            }
            "lseek" => {
                if let Some(opened) = self.descriptors.get(&call.number()) {
                    self.opened[*opened].position = usize::try_from(result).unwrap();
                }
                None
            }
            "mmap" => {
                let [_, _, protection, flags, descriptor, ..] = call.list()[..] else { panic!("{call}") };
                let opened = descriptor.parse().ok().and_then(|number: i64| self.descriptors.get(&number));
                let is_written = flags.contains("MAP_SHARED") && protection.contains("PROT_WRITE");
                assert!(opened.is_none() || !is_written, "a file is written through memory: {call}");
                None
            }
            "write" | "writev" => return self.write(call, usize::try_from(result).unwrap(), disk),
            "ftruncate" => match self.what(call) {
                Some(&What::File(file)) => Some(Step::Cut { file, length: call.list()[1].parse().unwrap() }),
                _ => None,
            },
            _ if is_sync => {
                let changes = call.covered.unwrap_or_else(|| self.covered(call, disk));
                match self.what(call) {
                    Some(&What::File(file)) => Some(Step::Sync { file, changes }),
                    Some(What::Dir(dir)) => Some(Step::SyncDir { dir: dir.clone(), changes }),
                    Some(What::Marks) | None => None,
                }
            }
            "rename" | "renameat" | "renameat2" => match &self.paths(call)[..] {
                [Some(from), Some(to)] => Some(Step::Rename { from: from.clone(), to: to.clone() }),
                [None, None] => None,
                _ => panic!("something came or went: {call}"),
            },
            "unlink" | "unlinkat" | "rmdir" => self.path(call).map(|path| Step::Remove { path }),
            "mkdir" | "mkdirat" => self.path(call).map(|dir| Step::CreateDir { dir }),
            _ => {
                let is_watched = self.what(call).is_some() || self.paths(call).iter().any(Option::is_some);
                assert!(!is_watched, "what this call does to the disk is not known: {call}");
                None
            }
        };
        step.map(Event::Step)
    }

    fn open(&mut self, call: &Call<'_>, result: i64, disk: &Disk) -> Option<Step> {
        self.descriptors.remove(&result);
        let mut step = None;
        let what = if let Some(path) = self.path(call) {
            assert!(!call.arguments.contains("O_TMPFILE"), "a file without a name: {call}");
            match disk.file(&path) {
                Some(file) => {
                    if call.arguments.contains("O_TRUNC") && disk.length(file) > 0 {
                        step = Some(Step::Cut { file, length: 0 });
                    }
                    What::File(file)
                }
                None if call.arguments.contains("O_CREAT") => {
                    step = Some(Step::Create { path });
                    What::File(disk.files())
                }
                None => What::Dir(path),
            }
        } else if call.texts() == [self.marks.as_os_str()] {
            What::Marks
        } else {
            return None;
        };
        self.descriptors.insert(result, self.opened.len());
        self.opened.push(Opened { what, appends: call.arguments.contains("O_APPEND"), position: 0 });
        step
    }

    fn write(&mut self, call: &Call<'_>, written: usize, disk: &Disk) -> Option<Event> {
        let opened = &mut self.opened[*self.descriptors.get(&call.number())?];
        let mut bytes = call.texts().into_iter().map(OsString::into_vec).collect::<Vec<_>>().concat();
        bytes.truncate(written);
        assert_eq!(bytes.len(), written, "{call}");
        Some(match opened.what {
            What::File(file) => {
                let position = if opened.appends { disk.length(file) } else { opened.position };
                opened.position = position + written;
                Event::Step(Step::Write { file, bytes, position })
            }
            What::Marks => Event::Mark(String::from_utf8(bytes).unwrap()),
            What::Dir(_) => panic!("a directory is written to: {call}"),
        })
    }

    /// How many changes a sync that begins now covers.
    fn covered(&self, call: &Call<'_>, disk: &Disk) -> usize {
        match self.what(call) {
            Some(What::File(file)) => disk.changes(*file),
            Some(What::Dir(_)) => disk.name_changes(),
            Some(What::Marks) | None => 0,
        }
    }

    /// What the descriptor that the call begins with stands for, if that is watched.
    fn what(&self, call: &Call<'_>) -> Option<&What> {
        self.descriptors.get(&call.number()).map(|opened| &self.opened[*opened].what)
    }

    /// The paths of the call, each if it is watched, from there.
    fn paths(&self, call: &Call<'_>) -> Vec<Option<PathBuf>> {
        let base = match self.what(call) {
            Some(What::Dir(dir)) => self.root.join(dir),
            _ => PathBuf::new(),
        };
        let below = |path: OsString| base.join(path).strip_prefix(&self.root).ok().map(Path::to_owned);
        call.texts().into_iter().map(below).collect()
    }

    fn path(&self, call: &Call<'_>) -> Option<PathBuf> {
        self.paths(call).into_iter().next().flatten()
    }
}

impl<'a> Call<'a> {
    fn parse(text: &'a str) -> Self {
        let (name, rest) = text.split_once('(').unwrap_or_else(|| panic!("not a call: {text:?}"));
        let (arguments, result) = rest.rsplit_once(" = ").unwrap_or((rest, "?"));
        let result = result.split(' ').next().unwrap_or_default();
        // An address is no number that anybody asks for.
        let result = if result.starts_with("0x") { Some(0) } else { result.parse().ok() };
        let arguments = arguments.trim_end().trim_end_matches(')');
        Self { name, arguments, result: result.filter(|result| *result >= 0), covered: None }
    }

    fn list(&self) -> Vec<&'a str> {
        self.arguments.split(", ").collect()
    }

    /// The number that the arguments begin with, or -1.
    fn number(&self) -> i64 {
        self.arguments.split(',').next().and_then(|number| number.parse().ok()).unwrap_or(-1)
    }

    /// The texts among the arguments, each byte of which is printed as `\x` and two digits.
    fn texts(&self) -> Vec<OsString> {
        let texts = self.arguments.split('"').skip(1).step_by(2);
        let bytes = |text: &str| {
            let digits = text.as_bytes().chunks(4);
            digits
                .map(|digits| u8::from_str_radix(str::from_utf8(&digits[2..]).unwrap(), 16).unwrap())
                .collect()
        };
        assert!(!self.arguments.contains("\"..."), "a text was cut: {self}");
        texts.map(|text| OsString::from_vec(bytes(text))).collect()
    }
}

impl fmt::Display for Call<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arguments: String = self.arguments.chars().take(1000).collect();
        write!(formatter, "{}({arguments})", self.name)
    }
}
