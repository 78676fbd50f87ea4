//! A file opened without writing to it: reads come from the file, writes stay in memory.
//!
//! Opening a redb file writes to it, before it is known whether the file is a journal at all, or a sound one. So the journal
//! is first opened, recovered and checked on this overlay, and only what passed is opened for real: a file that is refused
//! is left byte for byte as it was found. Memory stays small, since recovery writes a few pages, whatever the size of the
//! file. redb's own `open_read_only` cannot check a file's pages, and refuses a file that needs repair.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use redb::{BackendError, StorageBackend};

/// The unit of copying: redb's page.
const PAGE: usize = 4096;

/// Reads from `base` what was not written since, and never writes to it. Locks are those of the base.
#[derive(Debug)]
pub(crate) struct Overlay<B> {
    base: B,
    writes: Mutex<Writes>,
    failure: Failure,
}

/// The first read that the disk refused.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failure(Arc<Mutex<Option<io::Error>>>);

impl Failure {
    /// What the disk said; none if it gave everything that was asked for.
    pub(crate) fn take(&self) -> Option<io::Error> {
        self.0.lock().take()
    }

    /// Notes a refusal. That a file ends early is no fault of the disk.
    fn note(&self, read: io::Result<()>) -> io::Result<()> {
        if let Err(fault) = &read
            && fault.kind() != io::ErrorKind::UnexpectedEof
        {
            let said = fault.raw_os_error().map_or_else(|| fault.kind().into(), io::Error::from_raw_os_error);
            self.0.lock().get_or_insert(said);
        }
        read
    }
}

#[derive(Debug)]
struct Writes {
    len: u64,
    /// How much of the base still shows: it never grows back after the length was cut.
    base_len: u64,
    written: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl<B: StorageBackend> Overlay<B> {
    pub(crate) fn over(base: B) -> io::Result<Self> {
        let len = base.len()?;
        let writes = Mutex::new(Writes { len, base_len: len, written: BTreeMap::new() });
        Ok(Self { base, writes, failure: Failure::default() })
    }

    /// Where it is noted that the base could not be read.
    pub(crate) fn failure(&self) -> Failure {
        self.failure.clone()
    }

    fn writes(&self) -> MutexGuard<'_, Writes> {
        self.writes.lock()
    }

    fn read_base(&self, writes: &Writes, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        let visible = usize::try_from(writes.base_len.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        match out.get_mut(..visible) {
            Some(shown) if visible > 0 => self.failure.note(self.base.read(offset, shown)),
            _ => Ok(()),
        }
    }
}

/// The part of `offset..offset + len` that lies in each page: page number, range in the page, range in the buffer.
fn pages(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        // Less than a page, so it fits.
        let within = usize::try_from(at % PAGE as u64).unwrap_or(0);
        let take = (PAGE - within).min(len - done);
        let part = (take > 0).then(|| (at / PAGE as u64, within..within + take, done..done + take));
        done += take;
        part
    })
}

impl<B: StorageBackend> StorageBackend for Overlay<B> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.writes().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let writes = self.writes();
        if offset.saturating_add(out.len() as u64) > writes.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_base(&writes, offset, out)?;
        for (page, within, part) in pages(offset, out.len()) {
            if let (Some(written), Some(out)) = (writes.written.get(&page), out.get_mut(part)) {
                out.copy_from_slice(written.get(within).unwrap_or_default());
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut writes = self.writes();
        writes.len = len;
        writes.base_len = writes.base_len.min(len);
        let _cut = writes.written.split_off(&len.div_ceil(PAGE as u64));
        let beyond = usize::try_from(len % PAGE as u64).unwrap_or(0);
        if let Some(last) = writes.written.get_mut(&(len / PAGE as u64)) {
            last.get_mut(beyond..).unwrap_or_default().fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut writes = self.writes();
        writes.len = writes.len.max(offset.saturating_add(data.len() as u64));
        for (page, within, part) in pages(offset, data.len()) {
            if !writes.written.contains_key(&page) {
                let mut copy = Box::new([0; PAGE]);
                self.read_base(&writes, page * PAGE as u64, copy.as_mut_slice())?;
                writes.written.insert(page, copy);
            }
            if let Some(written) = writes.written.get_mut(&page).and_then(|written| written.get_mut(within)) {
                written.copy_from_slice(data.get(part).unwrap_or_default());
            }
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.base.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.base.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.base.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.base.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.base.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.base.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.base.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redb::backends::InMemoryBackend;

    use super::*;

    const SIZE: u64 = 5 * PAGE as u64;
    const PAST: usize = 2 * PAGE;

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..SIZE, prop::collection::vec(any::<u8>(), 0..PAST)).prop_map(|(at, data)| Step::Write(at, data)),
            (0..2 * SIZE).prop_map(Step::SetLen),
        ];
        prop::collection::vec(step, 0..12)
    }

    fn filled() -> InMemoryBackend {
        let base = InMemoryBackend::new();
        base.set_len(SIZE).unwrap();
        for page in 0..5 {
            base.write(page * PAGE as u64, &[7; PAGE]).unwrap();
        }
        base
    }

    fn bytes(backend: &impl StorageBackend) -> Vec<u8> {
        let mut bytes = vec![1; usize::try_from(backend.len().unwrap()).unwrap()];
        backend.read(0, &mut bytes).unwrap();
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn it_behaves_like_the_real_thing_and_leaves_it_untouched(steps in steps()) {
            let overlay = Overlay::over(filled()).unwrap();
            let real = filled();
            for step in steps {
                for backend in [&overlay as &dyn StorageBackend, &real] {
                    match &step {
                        // A write beyond the end is no part of redb's contract with its storage.
                        Step::Write(at, data) if at + data.len() as u64 <= backend.len().unwrap() => {
                            backend.write(*at, data).unwrap();
                        }
                        Step::Write(..) => {}
                        Step::SetLen(len) => backend.set_len(*len).unwrap(),
                    }
                }
                prop_assert!(bytes(&overlay) == bytes(&real));
            }
            prop_assert!(bytes(&overlay.base) == bytes(&filled()));
        }
    }

    #[test]
    fn reading_past_the_end_is_an_error_as_it_is_on_a_file() {
        let overlay = Overlay::over(filled()).unwrap();
        assert!(overlay.read(SIZE - 1, &mut [0; 2]).is_err());
    }
}
