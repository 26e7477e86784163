//! A full copy of a log in another store, every byte verified before it is written.
//!
//! Tiles and bundles are written once and never replaced, a tile after the bundle of its leaves, and the checkpoint
//! last. So the copy's own state tells where to go on: everything below its checkpoint is there, and behind it every
//! bundle of which the tile is. The lock of the copy holds the checkpoint that it has come to, which keeps two mirrors
//! of one log from going back behind each other.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::bundle::write_entry;
use crate::checkpoint::VerifiedCheckpoint;
use crate::policy::{Policy, PolicyViolation};
use crate::reader::{ReadError, Reader};
use crate::store::{CHECKPOINT_KEY, Lock, LockToken, ObjectStore, PutNew, StoreError, Swap, TileSource};
use crate::tile::{MAX_LEVELS, TILE_WIDTH, TilePath, bundle_of, n_full_tiles, partial_tile, write_hashes};

/// Bundles copied at the same time; at 16 MiB the longest, 256 MiB in the worst case, for each is copied once.
const CONCURRENT_COPIES: usize = 8;

const WIDTH: u64 = TILE_WIDTH as u64;

/// How far a copy has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MirrorProgress {
    /// Entries that are in the copy.
    pub n_entries: u64,
    /// Entries in the log.
    pub tree_size: u64,
    /// Bytes written so far.
    pub n_bytes: u64,
}

/// A finished copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorReport {
    /// The checkpoint that the copy had before.
    pub before: Option<VerifiedCheckpoint>,
    /// The checkpoint that it has now.
    pub checkpoint: VerifiedCheckpoint,
    /// Tiles and bundles that were written.
    pub n_written: u64,
    /// Bytes in them.
    pub n_bytes: u64,
    /// Entries that an interrupted run had copied already.
    pub n_resumed: u64,
}

/// Copies the log that `source` reads into `copy`, as of the reader's checkpoint, and publishes that checkpoint there.
///
/// What the copy has below its own checkpoint, and every bundle of which it has the tile, is gone on with but not read
/// again: [`fsck`](crate::fsck::fsck) of the copy checks that.
///
/// A checkpoint that the copy has must be signed by a log that `policy` trusts, of the same origin and not larger than the
/// new one, whose tree must go on from it; otherwise nothing is written.
pub async fn mirror<T: TileSource, S: ObjectStore + Lock>(
    source: &Reader<T>,
    copy: &S,
    policy: &Policy,
    mut progress: impl FnMut(MirrorProgress),
) -> Result<MirrorReport, MirrorError> {
    let checkpoint = source.checkpoint();
    let locked = copy.load().await?;
    let public = copy.get(CHECKPOINT_KEY).await?;
    let notes = [locked.as_ref().map(|locked| locked.bytes.clone()), public.clone()];
    let held: Vec<_> = notes
        .iter()
        .flatten()
        .map(|note| policy.verify_log_signature(note))
        .collect::<Result<_, _>>()
        .map_err(MirrorError::Held)?;
    for held in &held {
        check_grown(source, held).await?;
    }
    let before = held.into_iter().max_by_key(VerifiedCheckpoint::tree_size);
    let size_before = before.as_ref().map_or(0, VerifiedCheckpoint::tree_size);

    let tree_size = checkpoint.tree_size();
    let mut state = MirrorProgress { n_entries: size_before, tree_size, n_bytes: 0 };
    progress(state);
    let mut report = MirrorReport { before, checkpoint: checkpoint.clone(), n_written: 0, n_bytes: 0, n_resumed: 0 };
    let pieces = if size_before < tree_size { size_before / WIDTH..tree_size.div_ceil(WIDTH) } else { 0..0 };
    let mut pieces = stream::iter(pieces).map(|index| copy_piece(source, copy, index)).buffer_unordered(CONCURRENT_COPIES);
    while let Some(piece) = pieces.try_next().await? {
        // The first piece may have been there in part.
        state.n_entries = (state.n_entries + piece.entries).min(tree_size);
        state.n_bytes += piece.bytes;
        report.n_written += piece.objects;
        report.n_bytes += piece.bytes;
        report.n_resumed += if piece.objects == 0 { piece.entries } else { 0 };
        progress(state);
    }
    drop(pieces);
    for path in tiles_above_leaves(size_before, tree_size) {
        let bytes = write_hashes(&source.hashes(path).await?);
        let n_bytes = bytes.len() as u64;
        if put_new(copy, path, bytes).await? {
            report.n_written += 1;
            report.n_bytes += n_bytes;
        }
    }
    publish(copy, checkpoint, locked.map(|locked| (locked.bytes, locked.token)), public.as_ref()).await?;
    Ok(report)
}

/// The tiles of level 1 and above that a tree of `new_size` has, and one of `old_size` has not or may have not.
fn tiles_above_leaves(old_size: u64, new_size: u64) -> impl Iterator<Item = TilePath> {
    let full = (1..MAX_LEVELS).flat_map(move |level| {
        (n_full_tiles(old_size, level)..n_full_tiles(new_size, level))
            .filter_map(move |index| TilePath::hashes(level, index, TILE_WIDTH))
    });
    full.chain((1..MAX_LEVELS).filter_map(move |level| partial_tile(new_size, level)))
}

/// What was done for one bundle and its tile.
struct CopiedPiece {
    entries: u64,
    objects: u64,
    bytes: u64,
}

async fn copy_piece<T: TileSource>(source: &Reader<T>, copy: &impl ObjectStore, index: u64) -> Result<CopiedPiece, MirrorError> {
    let path = bundle_of(source.checkpoint().tree_size(), index * WIDTH).expect("pieces end where the tree does");
    let tile_path = TilePath::hashes(0, index, path.width()).expect("as wide as the bundle");
    let tile = write_hashes(&source.hashes(tile_path).await?);
    let entries = path.width().into();
    match copy.get(&tile_path.to_string()).await? {
        Some(there) if there == tile => return Ok(CopiedPiece { entries, objects: 0, bytes: 0 }),
        Some(_) => return Err(MirrorError::Differs { path: tile_path }),
        None => {}
    }
    let mut bundle = Vec::new();
    for entry in source.bundle(path).await? {
        write_entry(&mut bundle, &entry).expect("it came out of a bundle");
    }
    let bytes = (bundle.len() + tile.len()) as u64;
    let objects = u64::from(put_new(copy, path, bundle.into()).await?) + u64::from(put_new(copy, tile_path, tile).await?);
    Ok(CopiedPiece { entries, objects, bytes })
}

/// Whether the object was not there.
async fn put_new(copy: &impl ObjectStore, path: TilePath, bytes: Bytes) -> Result<bool, MirrorError> {
    match copy.put_new(&path.to_string(), bytes).await? {
        PutNew::Created => Ok(true),
        PutNew::ExistsSame => Ok(false),
        PutNew::ExistsDifferent => Err(MirrorError::Differs { path }),
    }
}

/// Moves the lock, then the checkpoint, each from what it was when this mirror began. Everything that the checkpoint needs
/// is there.
async fn publish<S: ObjectStore + Lock>(
    copy: &S,
    checkpoint: &VerifiedCheckpoint,
    locked: Option<(Bytes, LockToken)>,
    public: Option<&Bytes>,
) -> Result<(), MirrorError> {
    let note = Bytes::copy_from_slice(checkpoint.note().as_bytes());
    match locked {
        None => match copy.create(note.clone()).await? {
            PutNew::Created | PutNew::ExistsSame => {}
            PutNew::ExistsDifferent => return Err(MirrorError::Raced),
        },
        Some((there, _)) if there == note => {}
        Some((_, token)) => match copy.swap(&token, note.clone()).await {
            Swap::Swapped(_) => {}
            Swap::Lost => return Err(MirrorError::Raced),
            Swap::Unknown(error) => match copy.load().await? {
                Some(now) if now.bytes == note => {}
                _ => return Err(error.into()),
            },
        },
    }
    // Between the two, another mirror may have gone on from the lock: its checkpoint is not to be replaced by this one.
    if public != Some(&note) && !copy.put_over(CHECKPOINT_KEY, public, note.clone()).await? {
        return match copy.get(CHECKPOINT_KEY).await? {
            Some(there) if there == note => Ok(()),
            _ => Err(MirrorError::Raced),
        };
    }
    Ok(())
}

async fn check_grown<T: TileSource>(source: &Reader<T>, held: &VerifiedCheckpoint) -> Result<(), MirrorError> {
    let new = source.checkpoint();
    if held.origin() != new.origin() {
        return Err(MirrorError::OtherLog { origin: held.origin().to_owned() });
    }
    if held.tree_size() > new.tree_size() {
        return Err(MirrorError::Rollback { held: Box::new(held.clone()) });
    }
    if source.root_at(held.tree_size()).await? != held.root_hash() {
        return Err(MirrorError::Fork { held: Box::new(held.clone()) });
    }
    Ok(())
}

/// Why a log was not copied, or not to its end. The copy stays as good as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MirrorError {
    /// The copy has another object in this place: it is damaged, or a copy of something else.
    #[error("the copy has another {path}")]
    Differs {
        /// Which one.
        path: TilePath,
    },
    /// The log forked: the copy's checkpoint is signed, but its tree is no beginning of the new one.
    #[error("the log forked: its tree does not go on from the one that was copied")]
    Fork {
        /// The copy's checkpoint.
        held: Box<VerifiedCheckpoint>,
    },
    /// The copy's checkpoint was refused.
    #[error("the copy's checkpoint was refused")]
    Held(#[source] PolicyViolation),
    /// The copy is of another log.
    #[error("the copy is of another log, {origin}")]
    OtherLog {
        /// The name of that log.
        origin: String,
    },
    /// Something else wrote to the copy at the same time.
    #[error("another mirror moved the copy on; run again")]
    Raced,
    /// The source is damaged, or was not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log shrank: the copy's checkpoint is signed, and larger than the new one.
    #[error("the log shrank: the copy has a larger checkpoint")]
    Rollback {
        /// The copy's checkpoint.
        held: Box<VerifiedCheckpoint>,
    },
    /// The copy's store failed.
    #[error("the copy's store failed")]
    Store(#[from] StoreError),
}
