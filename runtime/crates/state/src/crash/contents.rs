//! The contents of a file on a [`Disk`](super::disk::Disk): those that are durable, and those that are only on their way.

use std::collections::BTreeSet;

use super::image::Image;

#[derive(Debug, Default)]
pub struct Contents {
    durable: Image,
    /// As a process sees it.
    current: Image,
    /// With their numbers.
    pending: Vec<(usize, Change)>,
    changes: usize,
}

#[derive(Debug)]
pub enum Change {
    Write { bytes: Vec<u8>, position: usize },
    Cut { length: usize },
}

/// What became of the bytes that were written and not synced.
#[derive(Debug, Clone, Copy)]
pub enum Bytes {
    Kept,
    Lost,
    /// Of the last write to each file only the first half is there.
    Torn,
    /// The files are as long as they should be, but with zeros.
    Zeroed,
    /// Kept but for this page of this file.
    AllBut(usize, usize),
    /// Lost but for this page of this file. The file is as long as it should be.
    Only(usize, usize),
}

impl Change {
    fn apply(&self, image: &mut Image) {
        match self {
            Self::Write { bytes, position } => image.write(bytes, *position),
            Self::Cut { length } => image.cut(*length),
        }
    }
}

impl Contents {
    /// Contents that are durable.
    pub fn holding(image: Image) -> Self {
        Self { durable: image.clone(), current: image, ..Self::default() }
    }

    /// As a process sees it.
    pub fn current(&self) -> &Image {
        &self.current
    }

    /// How many changes there were so far.
    pub fn changes(&self) -> usize {
        self.changes
    }

    /// Makes the first so many changes durable.
    pub fn sync(&mut self, changes: usize) {
        for (_, change) in self.pending.extract_if(.., |(number, _)| *number < changes) {
            change.apply(&mut self.durable);
        }
    }

    /// The system has given up: what is not durable never will be.
    pub fn fail_to_sync(&mut self) {
        self.pending.clear();
    }

    pub fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.pending.push((self.changes, change));
        self.changes += 1;
    }

    /// The pages that were written to and are not durable.
    pub fn unsynced_pages(&self) -> BTreeSet<usize> {
        let pages = self.pending.iter().map(|(_, change)| match change {
            Change::Write { bytes, position } => Image::pages(*position, bytes.len()),
            Change::Cut { .. } => 0..0,
        });
        pages.flatten().collect()
    }

    /// What there is after the power failed. The contents are those of that file.
    pub fn with(&self, bytes: Bytes, file: usize) -> Image {
        let all = |write: fn(&mut Image, &[u8], usize, bool)| {
            let mut image = self.durable.clone();
            for (n, (_, change)) in self.pending.iter().enumerate() {
                match change {
                    Change::Write { bytes, position } => {
                        write(&mut image, bytes, *position, n + 1 == self.pending.len());
                    }
                    Change::Cut { length } => image.cut(*length),
                }
            }
            image
        };
        let kept = || all(|image, bytes, position, _| image.write(bytes, position));
        match bytes {
            Bytes::Lost => self.durable.clone(),
            Bytes::Torn => all(|image, bytes, position, is_last| {
                image.write(if is_last { &bytes[..bytes.len() / 2] } else { bytes }, position);
            }),
            Bytes::Zeroed => all(|image, bytes, position, _| image.zero(position, bytes.len())),
            Bytes::AllBut(other, page) if other == file => {
                let mut image = kept();
                image.copy_page(page, &self.durable);
                image
            }
            Bytes::Only(other, page) if other == file => {
                let kept = kept();
                let mut image = self.durable.clone();
                image.cut(kept.length());
                image.copy_page(page, &kept);
                image
            }
            Bytes::Kept | Bytes::AllBut(..) => kept(),
            Bytes::Only(..) => self.durable.clone(),
        }
    }
}
