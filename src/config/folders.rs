//! Checks of folders that the bridge uses or will make, which change nothing.

use std::path::{Component, Path, PathBuf, absolute};

/// What is wrong with a folder that exists or will be made, as a clause that follows its key.
pub(super) fn check(folder: &Path) -> Result<(), String> {
    // The nearest existing one decides whether the rest can be made.
    let Some(nearest) = folder.ancestors().find(|path| path.symlink_metadata().is_ok()) else { return Ok(()) };
    if nearest.is_dir() {
        return Ok(());
    }
    Err(format!("needs a folder, and {} is none", nearest.display()))
}

/// The files in a folder; none if it does not exist.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

/// Whether two paths lead to the same folder, existing or not.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    resolved(one) == resolved(other)
}

/// Without links and `..`, as far as the path exists.
fn resolved(path: &Path) -> PathBuf {
    let mut resolved = PathBuf::new();
    for part in absolute(path).unwrap_or_else(|_| path.to_owned()).components() {
        match part {
            Component::ParentDir => drop(resolved.pop()),
            part => resolved.push(part),
        }
        if let Ok(found) = resolved.canonicalize() {
            resolved = found;
        }
    }
    resolved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_to_one_folder_are_known_to_be_the_same_before_it_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let (base, link) = (folder.path().join("base"), folder.path().join("link"));
        std::fs::create_dir(&base).unwrap();
        std::os::unix::fs::symlink(&base, &link).unwrap();
        assert!(is_same(&base.join("x"), &link.join("y/../x/")));
        assert!(!is_same(&base.join("x"), &base.join("x/y")));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_told_and_one_that_is_missing_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(check(&file).is_err() && check(&file.join("below")).is_err());
        assert!(
            check(folder.path()).is_ok()
                && check(&folder.path().join("a/b")).is_ok()
                && check(Path::new("a/b")).is_ok()
        );
    }
}
