//! The pages of the journal's file, read beside redb, to find out whether they are still what was written.
//!
//! redb keeps a checksum of every page in the page above it, and of the topmost ones in the file's header, and compares
//! none of them when it reads: a bit that flips on the disk is believed. So the trees are walked here, as redb's file
//! format 3 has them (`docs/design.md` in its sources), and every page is compared with its checksum before anything in
//! it is trusted. Only bytes are looked at, and nothing is written. What is walked must not change meanwhile: a file that
//! no process has open, or the pages of a commit that a [`Snapshot`](super::tables::Snapshot) holds.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, ErrorKind};

use redb::StorageBackend;
use twox_hash::XxHash3_128;

/// The header and both commit slots.
const HEADER_BYTES: usize = 320;
const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
const FORMAT: u8 = 3;
const SLOT_BYTES: usize = 128;
/// Without the checksum that ends it.
const SLOT_SUMMED: usize = SLOT_BYTES - 16;
const LEAF: u8 = 1;
const BRANCH: u8 = 2;
/// Far deeper than any tree that fits on a disk.
const MAX_DEPTH: usize = 64;
/// Faults kept of one file; more tell nothing new.
const MAX_DAMAGES: usize = 100;

/// A page and what its bytes must add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    page: u64,
    checksum: u128,
}

impl Node {
    /// Tells it from all others of a file, as far as a checksum can.
    #[allow(clippy::cast_possible_truncation, reason = "half of a checksum is as good a hash")]
    fn tag(self) -> u64 {
        (self.checksum as u64).wrapping_add(self.page)
    }
}

/// A table's tree. Widths are none where they differ from entry to entry.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) name: String,
    root: Option<Node>,
    key_width: Option<usize>,
    value_width: Option<usize>,
}

/// Bytes that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    table: String,
    offset: u64,
    len: u64,
    reason: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, offset, len, reason } = self;
        write!(formatter, "{table}, {len} bytes from byte {offset}: {reason}")
    }
}

/// What the header says of the last commit, and where pages lie.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    page_bytes: u64,
    region_header_bytes: u64,
    region_bytes: u64,
    data: Option<Node>,
    system: Option<Node>,
}

/// Why a header leads to no pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// No file of redb's, or of another format.
    Unknown,
    /// The last commit was not one of the kind that needs no repair: redb has to look first.
    Unsettled,
    /// The slot of the last commit is not what was written.
    Damaged,
}

impl Header {
    /// Reads the header. No commit may be under way.
    pub(crate) fn read(backend: &dyn StorageBackend) -> io::Result<Result<Self, Unusable>> {
        let mut bytes = [0; HEADER_BYTES];
        match backend.read(0, &mut bytes) {
            Ok(()) => Ok(Self::parse(&bytes)),
            Err(fault) if fault.kind() == ErrorKind::UnexpectedEof => Ok(Err(Unusable::Unknown)),
            Err(fault) => Err(fault),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, Unusable> {
        const SECOND: u8 = 1;
        const TWO_PHASES: u8 = 4;
        if bytes.get(..MAGIC.len()) != Some(MAGIC) {
            return Err(Unusable::Unknown);
        }
        let flags = u8_at(bytes, 9).ok_or(Unusable::Unknown)?;
        let slot = 64 + usize::from(flags & SECOND) * SLOT_BYTES;
        let slot = bytes.get(slot..slot + SLOT_BYTES).ok_or(Unusable::Unknown)?;
        if flags & TWO_PHASES == 0 {
            return Err(Unusable::Unsettled);
        }
        let summed = slot.get(..SLOT_SUMMED).ok_or(Unusable::Unknown)?;
        if u128_at(slot, SLOT_SUMMED) != Some(XxHash3_128::oneshot(summed)) {
            return Err(Unusable::Damaged);
        }
        if u8_at(slot, 0) != Some(FORMAT) {
            return Err(Unusable::Unknown);
        }
        let word = |at| u32_at(bytes, at).map(u64::from).ok_or(Unusable::Unknown);
        let (page_bytes, header_pages, data_pages) = (word(12)?, word(16)?, word(20)?);
        let root = |present, at| (u8_at(slot, present) != Some(0)).then(|| node_at(slot, at)).flatten();
        Ok(Self {
            page_bytes,
            region_header_bytes: header_pages * page_bytes,
            region_bytes: (header_pages + data_pages) * page_bytes,
            data: root(1, 8),
            system: root(2, 40),
        })
    }

    /// Where a page lies: its first byte and its length.
    fn extent(&self, page: u64) -> Option<(u64, u64)> {
        let order = u32::try_from(page >> 59).ok()?;
        let index = page & (0xf_ffff >> order);
        let region = (page >> 20) & 0xf_ffff;
        let len = self.page_bytes.checked_shl(order)?;
        let within = self.region_header_bytes.checked_add(index.checked_mul(len)?)?;
        let start = self.page_bytes.checked_add(region.checked_mul(self.region_bytes)?)?.checked_add(within)?;
        Some((start, len))
    }
}

/// How far a verification came with what it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Everything was compared.
    Done,
    /// It may be gone on with, on the same commit or on a later one.
    More,
}

/// A verification under way. It remembers the pages that it has been through, with all below them, so that it can go on
/// with a later commit, of which most is the same: some megabytes for a million payments, as long as it goes on.
#[derive(Debug, Default)]
pub(crate) struct Verifier {
    seen: HashSet<u64>,
    pub(crate) damages: Vec<Damage>,
    pub(crate) pages: u64,
    pub(crate) bytes: u64,
}

/// One step of a walk: a page to look at, or a branch all of whose pages were.
enum Step {
    Enter(Node, usize),
    Leave(Node),
}

impl Verifier {
    /// Compares pages of the journal's own tables, about `budget` bytes of them, those of the table `first` before all
    /// others.
    pub(crate) fn verify_data(
        &mut self,
        backend: &dyn StorageBackend,
        header: &Header,
        first: &str,
        budget: u64,
    ) -> io::Result<Progress> {
        let mut trees = self.tables(backend, header, header.data, "the list of tables")?;
        trees.sort_by_key(|tree| tree.name != first);
        self.verify(backend, header, &trees, budget)
    }

    /// Compares the pages by which redb knows which others are free, and of the journal's tables those that `wanted`
    /// picks. No commit may happen meanwhile.
    pub(crate) fn verify_beside_data(
        &mut self,
        backend: &dyn StorageBackend,
        header: &Header,
        wanted: impl Fn(&str) -> bool,
    ) -> io::Result<()> {
        let mut trees = self.tables(backend, header, header.system, "the list of redb's own tables")?;
        let tables = self.tables(backend, header, header.data, "the list of tables")?;
        trees.extend(tables.into_iter().filter(|tree| wanted(&tree.name)));
        self.verify(backend, header, &trees, u64::MAX).map(|_| ())
    }

    fn verify(
        &mut self,
        backend: &dyn StorageBackend,
        header: &Header,
        trees: &[Tree],
        budget: u64,
    ) -> io::Result<Progress> {
        let end = self.bytes.saturating_add(budget);
        for tree in trees {
            let mut steps: Vec<_> = tree.root.map(|root| Step::Enter(root, 0)).into_iter().collect();
            while let Some(step) = steps.pop() {
                if self.bytes >= end {
                    return Ok(Progress::More);
                }
                match step {
                    Step::Leave(node) => drop(self.seen.insert(node.tag())),
                    Step::Enter(node, _) if self.seen.contains(&node.tag()) => {}
                    Step::Enter(node, depth) => {
                        let page = self.compare(backend, header, tree, node, depth)?;
                        let Some(below) = page.and_then(|page| children(&page)) else {
                            self.seen.insert(node.tag());
                            continue;
                        };
                        steps.push(Step::Leave(node));
                        steps.extend(below.into_iter().rev().map(|child| Step::Enter(child, depth + 1)));
                    }
                }
            }
        }
        Ok(Progress::Done)
    }

    /// The tables that a list of tables names.
    fn tables(
        &mut self,
        backend: &dyn StorageBackend,
        header: &Header,
        root: Option<Node>,
        name: &str,
    ) -> io::Result<Vec<Tree>> {
        let list = Tree { name: name.to_owned(), root, key_width: None, value_width: None };
        let mut steps: Vec<_> = root.map(|root| (root, 0)).into_iter().collect();
        let mut found = Vec::new();
        while let Some((node, depth)) = steps.pop() {
            let Some(page) = self.compare(backend, header, &list, node, depth)? else { continue };
            if let Some(below) = children(&page) {
                steps.extend(below.into_iter().map(|child| (child, depth + 1)));
                continue;
            }
            let tables = entries(&page).and_then(|entries| entries.into_iter().map(table).collect::<Option<Vec<_>>>());
            found.extend(tables.ok_or_else(|| io::Error::other("a table of a kind that cannot be verified"))?);
        }
        Ok(found)
    }

    /// A page's bytes, where they are what was written.
    fn compare(
        &mut self,
        backend: &dyn StorageBackend,
        header: &Header,
        tree: &Tree,
        node: Node,
        depth: usize,
    ) -> io::Result<Option<Vec<u8>>> {
        let (offset, len) = header.extent(node.page).unwrap_or((0, 0));
        let mut reason = "there is no such page";
        let size = usize::try_from(len).unwrap_or(0);
        // What differs is read again before it is called damage.
        for _ in 0..2 {
            if depth > MAX_DEPTH || size == 0 || offset.saturating_add(len) > backend.len()? {
                break;
            }
            let mut bytes = vec![0; size];
            backend.read(offset, &mut bytes)?;
            self.pages += 1;
            self.bytes += len;
            if summed(&bytes, tree).is_some_and(|bytes| XxHash3_128::oneshot(bytes) == node.checksum) {
                return Ok(Some(bytes));
            }
            reason = "they are not what was written";
        }
        let damage = Damage { table: tree.name.clone(), offset, len, reason };
        if self.damages.len() < MAX_DAMAGES && !self.damages.contains(&damage) {
            self.damages.push(damage);
        }
        Ok(None)
    }
}

/// The part of a page that its checksum is of: all up to its last entry.
fn summed<'p>(page: &'p [u8], tree: &Tree) -> Option<&'p [u8]> {
    let count = usize::from(u16_at(page, 2)?);
    let last = count.checked_sub(1)?;
    let end = match *page.first()? {
        BRANCH => {
            let ends = 8 + 24 * (count + 1);
            tree.key_width.map_or_else(|| offset_at(page, ends + 4 * last), |width| Some(ends + width * count))?
        }
        LEAF => {
            let key_ends = 4;
            let value_ends = key_ends + if tree.key_width.is_none() { 4 * count } else { 0 };
            let keys = value_ends + if tree.value_width.is_none() { 4 * count } else { 0 };
            match (tree.key_width, tree.value_width) {
                (_, None) => offset_at(page, value_ends + 4 * last)?,
                (Some(key), Some(value)) => keys + (key + value) * count,
                (None, Some(value)) => offset_at(page, key_ends + 4 * last)? + value * count,
            }
        }
        _ => return None,
    };
    page.get(..end)
}

/// The pages below a branch; none below a leaf.
fn children(page: &[u8]) -> Option<Vec<Node>> {
    if *page.first()? != BRANCH {
        return None;
    }
    let count = usize::from(u16_at(page, 2)?) + 1;
    let child = |at| Some(Node { checksum: u128_at(page, 8 + 16 * at)?, page: u64_at(page, 8 + 16 * count + 8 * at)? });
    (0..count).map(child).collect()
}

/// The entries of a leaf whose keys and values have no fixed width.
fn entries(page: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let count = usize::from(u16_at(page, 2)?);
    let (key_ends, value_ends, keys) = (4, 4 + 4 * count, 4 + 8 * count);
    let piece = |ends: usize, at: usize, first: usize| {
        let start = at.checked_sub(1).map_or(Some(first), |before| offset_at(page, ends + 4 * before))?;
        page.get(start..offset_at(page, ends + 4 * at)?)
    };
    let values = offset_at(page, key_ends + 4 * count.checked_sub(1)?)?;
    (0..count).map(|at| Some((piece(key_ends, at, keys)?, piece(value_ends, at, values)?))).collect()
}

/// A table as a list of tables has it.
fn table((name, definition): (&[u8], &[u8])) -> Option<Tree> {
    const PLAIN: u8 = 3;
    if u8_at(definition, 0)? != PLAIN {
        return None;
    }
    let width = |at| Some((u8_at(definition, at)? != 0).then_some(offset_at(definition, at + 1)?));
    Some(Tree {
        name: format!("{}", String::from_utf8_lossy(name)),
        root: if u8_at(definition, 9)? == 0 { None } else { Some(node_at(definition, 10)?) },
        key_width: width(42)?,
        value_width: width(47)?,
    })
}

fn node_at(bytes: &[u8], at: usize) -> Option<Node> {
    Some(Node { page: u64_at(bytes, at)?, checksum: u128_at(bytes, at + 8)? })
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

fn u128_at(bytes: &[u8], at: usize) -> Option<u128> {
    array_at(bytes, at).map(u128::from_le_bytes)
}

fn offset_at(bytes: &[u8], at: usize) -> Option<usize> {
    u32_at(bytes, at).and_then(|offset| usize::try_from(offset).ok())
}
