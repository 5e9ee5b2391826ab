//! The contents of a file: pages that are shared with other images, and holes where everything is zero. Files of this test
//! are dozens of megabytes long, nearly all of it holes, and there are thousands of images of each.

use std::{
    collections::BTreeMap,
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read as _},
    ops::Range,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
};

/// What a disk writes at once, or not.
const PAGE_BYTES: usize = 4096;

type Page = [u8; PAGE_BYTES];

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// Those that are not all zero. What is behind the length is zero.
    pages: Arc<BTreeMap<usize, Arc<Page>>>,
    length: usize,
    /// Of all pages together, so that an image need not be read to be told from another one.
    digest: u64,
}

impl Hash for Image {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.length, self.digest).hash(state);
    }
}

impl Image {
    /// The numbers of the pages that hold these bytes.
    pub fn pages(position: usize, length: usize) -> Range<usize> {
        position / PAGE_BYTES..(position + length).div_ceil(PAGE_BYTES)
    }

    pub fn length(&self) -> usize {
        self.length
    }

    pub fn write(&mut self, bytes: &[u8], position: usize) {
        self.length = self.length.max(position + bytes.len());
        let mut rest = bytes;
        let mut position = position;
        while !rest.is_empty() {
            let within = position % PAGE_BYTES;
            let (part, after) = rest.split_at(rest.len().min(PAGE_BYTES - within));
            self.change(position / PAGE_BYTES, |page| {
                page[within..within + part.len()].copy_from_slice(part)
            });
            rest = after;
            position += part.len();
        }
    }

    pub fn zero(&mut self, position: usize, length: usize) {
        self.length = self.length.max(position + length);
        for number in Self::pages(position, length) {
            let start = number * PAGE_BYTES;
            let from = position.max(start) - start;
            let to = (position + length).min(start + PAGE_BYTES) - start;
            self.change(number, |page| page[from..to].fill(0));
        }
    }

    pub fn cut(&mut self, length: usize) {
        let last = length / PAGE_BYTES;
        let behind: Vec<_> = self.pages.range(last + 1..).map(|(number, _)| *number).collect();
        behind.into_iter().for_each(|number| self.put(number, None));
        self.change(last, |page| page[length % PAGE_BYTES..].fill(0));
        self.length = length;
    }

    /// Makes a page what it is in the other image, as far as this one goes.
    pub fn copy_page(&mut self, number: usize, other: &Self) {
        self.put(number, other.pages.get(&number).cloned());
        self.cut(self.length);
    }

    fn change(&mut self, number: usize, change: impl FnOnce(&mut Page)) {
        let mut page = self.pages.get(&number).map_or([0; PAGE_BYTES], |page| **page);
        change(&mut page);
        self.put(number, page.iter().any(|&byte| byte != 0).then(|| Arc::new(page)));
    }

    fn put(&mut self, number: usize, page: Option<Arc<Page>>) {
        let pages = Arc::make_mut(&mut self.pages);
        let digest = |page: Arc<Page>| {
            let mut hasher = DefaultHasher::new();
            hasher.write_usize(number);
            hasher.write(&page[..]);
            hasher.finish()
        };
        self.digest ^= page.clone().map_or(0, digest);
        let before = match page {
            Some(page) => pages.insert(number, page),
            None => pages.remove(&number),
        };
        self.digest ^= before.map_or(0, digest);
    }

    pub fn of(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut image = Self::default();
        let mut chunk = vec![0; 16 * PAGE_BYTES];
        loop {
            let read = file.read(&mut chunk)?;
            if read == 0 {
                return Ok(image);
            }
            let position = image.length;
            image.write(&chunk[..read], position);
        }
    }

    pub fn paint(&self, path: &Path) -> io::Result<()> {
        let file = File::create_new(path)?;
        for (number, page) in &*self.pages {
            file.write_all_at(&page[..], (number * PAGE_BYTES) as u64)?;
        }
        file.set_len(self.length as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Write(Vec<u8>, usize),
        Zero(usize, usize),
        Cut(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let position = || 0..3 * PAGE_BYTES;
        let step = prop_oneof![
            (any::<u8>(), 0..2 * PAGE_BYTES, position())
                .prop_map(|(byte, length, position)| Step::Write(vec![byte; length], position)),
            (position(), 0..2 * PAGE_BYTES).prop_map(|(position, length)| Step::Zero(position, length)),
            position().prop_map(Step::Cut),
        ];
        prop::collection::vec(step, 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

        #[test]
        fn an_image_is_what_a_vector_would_be(steps in steps()) {
            let (mut image, mut truth) = (Image::default(), Vec::new());
            for step in steps {
                match step {
                    Step::Write(bytes, position) => {
                        truth.resize(truth.len().max(position + bytes.len()), 0);
                        truth[position..position + bytes.len()].copy_from_slice(&bytes);
                        image.write(&bytes, position);
                    }
                    Step::Zero(position, length) => {
                        truth.resize(truth.len().max(position + length), 0);
                        truth[position..position + length].fill(0);
                        image.zero(position, length);
                    }
                    Step::Cut(length) => {
                        truth.resize(length, 0);
                        image.cut(length);
                    }
                }
            }
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("painted");
            image.paint(&path).unwrap();
            prop_assert_eq!(std::fs::read(&path).unwrap(), truth);
            prop_assert_eq!(Image::of(&path).unwrap(), image);
        }
    }
}
