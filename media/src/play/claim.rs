//! A file that will be written at the end of something long, tried at its beginning.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::PlayError;

/// A path that can be written, because it was tried.
///
/// What stands in the file already stays until somebody writes it. A file that was not there before, and into which
/// nothing was written, goes again when the claim is dropped.
///
/// ```
/// use parlor_media::play::OutputClaim;
///
/// assert!(OutputClaim::new("no/such/folder/call.mp4").is_err());
/// ```
#[derive(Debug)]
pub struct OutputClaim {
    path: PathBuf,
    is_new: bool,
}

impl OutputClaim {
    /// Opens `path` for writing, and makes the file if it is not there.
    ///
    /// # Errors
    /// [`PlayError::Output`] if it cannot be written.
    pub fn new(path: impl AsRef<Path>) -> Result<OutputClaim, PlayError> {
        let path = path.as_ref();
        let new = OpenOptions::new().write(true).create_new(true).open(path);
        let is_new = match new {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                OpenOptions::new().write(true).open(path).map_err(PlayError::output(path))?;
                false
            }
            Err(error) => return Err(PlayError::output(path)(error)),
        };
        Ok(OutputClaim { path: path.to_owned(), is_new })
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for OutputClaim {
    fn drop(&mut self) {
        if self.is_new && fs::metadata(&self.path).is_ok_and(|file| file.is_file() && file.len() == 0) {
            // It stays behind empty at worst.
            _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_tells_at_once_and_leaves_nothing_behind() {
        let folder = std::env::temp_dir().join(format!("parlor-claim-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (path, taken) = (folder.join("new.mp4"), folder.join("taken.mp4"));

        let claim = OutputClaim::new(&path).unwrap();
        assert!(claim.path().is_file());
        drop(claim);
        assert!(!path.exists());

        let claim = OutputClaim::new(&path).unwrap();
        fs::write(claim.path(), "a recording").unwrap();
        drop(claim);
        assert!(path.exists());

        for text in ["an earlier recording", ""] {
            fs::write(&taken, text).unwrap();
            drop(OutputClaim::new(&taken).unwrap());
            assert_eq!(fs::read_to_string(&taken).unwrap(), text);
        }

        for bad in [folder.clone(), folder.join("nowhere/x.mp4"), taken.join("x.mp4")] {
            let error = OutputClaim::new(&bad).unwrap_err().to_string();
            assert!(error.contains("choose a path in a folder that exists"), "{error}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
