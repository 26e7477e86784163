//! Builds the tree from its pieces, and decides what is damaged.

use bytes::Bytes;

use crate::bundle::parse_bundle;
use crate::checkpoint::VerifiedCheckpoint;
use crate::fsck::PIECE;
use crate::fsck::damage::{Damage, Problem};
use crate::fsck::leftovers::{Leftovers, difference};
use crate::fsck::piece::{Conflict, Content, Found, Piece, first_difference, parse_tile, tile_above};
use crate::fsck::report::{FsckReport, Progress, Tally};
use crate::fsck::resume::ResumePoint;
use crate::hash::{EMPTY_ROOT, Hash};
use crate::merkle;
use crate::reader::{ReadError, Reader};
use crate::store::{CHECKPOINT_KEY, StoreError, TileSource, get_tile};
use crate::tile::{MAX_LEVELS, TILE_WIDTH, TileContent, TilePath, parse_hashes};
use crate::tree::RightEdge;

/// What is known so far.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) checkpoint: VerifiedCheckpoint,
    /// Made of what the entries make wherever nothing is damaged.
    pub(crate) edge: RightEdge,
    pub(crate) tally: Tally,
    /// The last point before any damage, or before the partial bundle at the end, once either is reached.
    last_point: Option<ResumePoint>,
}

impl State {
    pub(crate) fn resume_point(&self) -> ResumePoint {
        let here = || ResumePoint::new(&self.edge, &self.tally, self.checkpoint.note(), self.checkpoint.checkpoint());
        self.last_point.clone().unwrap_or_else(here)
    }

    /// Takes back every point: one of them lies behind damage, and it is not known which.
    fn drop_points(&mut self) {
        let (edge, tally) = (RightEdge::empty(), Tally::default());
        self.last_point = Some(ResumePoint::new(&edge, &tally, self.checkpoint.note(), self.checkpoint.checkpoint()));
    }
}

/// What was read; `None` where damage lies in the way.
fn readable<R>(read: Result<R, ReadError>) -> Result<Option<R>, StoreError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(ReadError::Store(error)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// A check under way.
pub(crate) struct Judge<'a, T> {
    source: &'a T,
    leftovers: &'a Leftovers,
    state: State,
    // Opened for the first conflict, unless the edge of the tree is damaged.
    reader: Option<Reader<&'a T>>,
}

impl<'a, T: TileSource> Judge<'a, T> {
    pub(crate) fn new(source: &'a T, leftovers: &'a Leftovers, checkpoint: &VerifiedCheckpoint) -> Self {
        let (edge, tally) = (RightEdge::empty(), Tally::default());
        let state = State { checkpoint: checkpoint.clone(), edge, tally, last_point: None };
        Self { source, leftovers, state, reader: None }
    }

    pub(crate) fn resume(&mut self, point: ResumePoint) {
        (self.state.edge, self.state.tally) = (point.edge, point.tally);
    }

    pub(crate) fn n_entries(&self) -> u64 {
        self.state.edge.size()
    }

    pub(crate) fn progress(&self) -> Progress<'_> {
        Progress(&self.state)
    }

    /// Adds the next piece to the tree.
    pub(crate) async fn take(&mut self, piece: Piece) -> Result<(), StoreError> {
        let path = piece.path;
        // A tile above it that becomes full may turn out damaged, too.
        let in_doubt = !piece.is_good() || path.index() % PIECE == PIECE - 1 || path.is_partial();
        let point = (in_doubt && self.state.last_point.is_none()).then(|| self.state.resume_point());
        self.state.tally.add(piece.tally);
        let (leaves, root) = match piece.content {
            Content::Agreed { leaves, root } => (leaves, root),
            Content::Conflict(conflict) => self.decide(path, *conflict).await?,
        };
        match root {
            Some(root) => {
                self.state.edge.grow_by_tile();
                let (mut level, mut hash) = (1, root);
                while let Some((path, computed)) = self.state.edge.push_at(level, hash) {
                    hash = merkle::root(&self.compare(path, computed).await?);
                    level += 1;
                }
            }
            None => leaves.into_iter().for_each(|leaf| self.state.edge.push(leaf, |_, _| {})),
        }
        if self.state.last_point.is_none() && (self.state.tally.n_damaged > 0 || path.is_partial()) {
            self.state.last_point = point;
        }
        Ok(())
    }

    /// Compares the partial tiles and the root.
    pub(crate) async fn finish(mut self) -> Result<FsckReport, StoreError> {
        let tree_size = self.state.checkpoint.tree_size();
        for path in RightEdge::tiles_of(tree_size) {
            if let TileContent::Hashes(level @ 1..) = path.content() {
                self.compare(path, self.state.edge.level(level).to_vec()).await?;
            }
        }
        let (expected, got) = (self.state.checkpoint.root_hash(), self.state.edge.root());
        if self.state.tally.n_damaged == 0 && expected != got {
            let problem = Problem::Root { expected, got };
            let bytes = Bytes::copy_from_slice(self.state.checkpoint.note().as_bytes());
            self.state.tally.damage(Damage { key: CHECKPOINT_KEY.to_owned(), problem, bytes: Some(bytes) });
            self.state.drop_points();
        }
        let n_beyond = self.leftovers.n_beyond(tree_size);
        let resume_point = self.state.resume_point();
        Ok(FsckReport { checkpoint: self.state.checkpoint, tally: self.state.tally, n_beyond, resume_point })
    }

    /// Compares a tile above the leaves with what the tiles below make; returns the hashes that the tree has there, as
    /// far as that can be told.
    async fn compare(&mut self, path: TilePath, computed: Vec<Hash>) -> Result<Vec<Hash>, StoreError> {
        let found = Found::new(path, get_tile(self.source, path).await?, parse_tile);
        if let Some(bytes) = &found.bytes {
            self.state.tally.tile(bytes);
        }
        let trusted = match &found.leaves {
            Ok(stored) if *stored == computed => computed,
            Ok(stored) => {
                let above = self.above(path).await?;
                if self.belongs(path, stored, above) {
                    self.blame_below(path, &computed, stored);
                    stored.clone()
                } else {
                    let problem = difference(&computed, stored).expect("they differ");
                    self.blame(&found, problem);
                    computed
                }
            }
            Err(problem) => {
                self.blame(&found, problem.clone());
                computed
            }
        };
        self.leftovers.compare(self.source, path, &trusted, None, &mut self.state.tally).await?;
        Ok(trusted)
    }

    /// Tells which of a bundle and its tile is damaged; returns the leaves, and the root of a full tile.
    async fn decide(&mut self, path: TilePath, conflict: Conflict) -> Result<(Vec<Hash>, Option<Hash>), StoreError> {
        let Conflict { bundle, tile } = conflict;
        let tile_path = TilePath::hashes(0, path.index(), path.width()).expect("as wide as the bundle");
        let above = self.above(tile_path).await?;
        let belongs = |found: &Found| found.leaves.as_ref().is_ok_and(|leaves| self.belongs(tile_path, leaves, above));
        let (bundle_belongs, tile_belongs) = (belongs(&bundle), belongs(&tile));
        match (&bundle.leaves, &tile.leaves) {
            (Ok(computed), Ok(stored)) if tile_belongs => {
                let (position, expected, got) = first_difference(stored, computed).expect("they differ");
                let index = path.index() * PIECE + position;
                self.blame_entry(&bundle, position, Problem::Entry { index, expected, got });
            }
            (Ok(computed), Ok(stored)) => {
                self.blame(&tile, difference(computed, stored).expect("they differ"));
                if !bundle_belongs {
                    self.blame_stray(&bundle, tile_path, computed, above);
                }
            }
            (leaves, hashes) => {
                for (found, leaves, belongs) in [(&bundle, leaves, bundle_belongs), (&tile, hashes, tile_belongs)] {
                    match leaves {
                        Err(problem) => self.blame(found, problem.clone()),
                        Ok(leaves) if !belongs => self.blame_stray(found, tile_path, leaves, above),
                        Ok(_) => {}
                    }
                }
            }
        }
        let trusted = match (&bundle.leaves, &tile.leaves) {
            (Ok(computed), _) if bundle_belongs => computed,
            (_, Ok(stored)) if tile_belongs => stored,
            (Ok(computed), _) => computed,
            (Err(_), Ok(stored)) => stored,
            // Whatever stands here is wrong, but the tree needs something.
            (Err(_), Err(_)) => &vec![EMPTY_ROOT; usize::from(path.width())],
        };
        let bundle_bytes = bundle.bytes.as_ref().filter(|_| bundle_belongs);
        if bundle_belongs || tile_belongs {
            self.leftovers.compare(self.source, path, trusted, bundle_bytes, &mut self.state.tally).await?;
            self.leftovers.compare(self.source, tile_path, trusted, None, &mut self.state.tally).await?;
        }
        let root = (!path.is_partial()).then(|| above.unwrap_or_else(|| merkle::root(trusted)));
        Ok((trusted.clone(), root))
    }

    /// The hash that the tree has for a full tile: from tiles that lead to the root, or else from the one above it.
    /// `None` for a partial one, which has only the root above it.
    async fn above(&mut self, path: TilePath) -> Result<Option<Hash>, StoreError> {
        let TileContent::Hashes(level) = path.content() else { return Ok(None) };
        if path.is_partial() {
            return Ok(None);
        }
        if self.reader.is_none() {
            self.reader = readable(Reader::at(self.source, self.state.checkpoint.clone()).await)?;
        }
        if let Some(reader) = &self.reader
            && let Some(hash) = readable(reader.node(level + 1, path.index()).await)?
        {
            return Ok(Some(hash));
        }
        let Some(above) = tile_above(self.state.checkpoint.tree_size(), level, path.index()) else { return Ok(None) };
        let position = usize::try_from(path.index() % u64::from(TILE_WIDTH)).expect("less than 256");
        let found = get_tile(self.source, above).await?;
        let hashes = found.and_then(|(bytes, _)| parse_hashes(&bytes, above.width()));
        Ok(hashes.and_then(|hashes| hashes.get(position).copied()))
    }

    /// Whether a tile of these hashes is the tree's, as far as the one above it can tell.
    fn belongs(&self, path: TilePath, hashes: &[Hash], above: Option<Hash>) -> bool {
        if path.is_partial() {
            return self.root_with(path, hashes) == Some(self.state.checkpoint.root_hash());
        }
        above == Some(merkle::root(hashes))
    }

    /// The root of the tree if a partial tile of its edge were made of these hashes.
    fn root_with(&self, path: TilePath, hashes: &[Hash]) -> Option<Hash> {
        let tree_size = self.state.checkpoint.tree_size();
        let levels = (0..MAX_LEVELS).map(|level| match path.content() {
            TileContent::Hashes(own) if own == level => hashes.to_vec(),
            _ => self.state.edge.level(level).to_vec(),
        });
        let edge = RightEdge::from_tiles(tree_size, levels.filter(|hashes| !hashes.is_empty()));
        edge.map(|edge| edge.root())
    }

    fn blame(&mut self, found: &Found, problem: Problem) {
        self.state.tally.damage(Damage::new(found.path, problem, found.bytes.as_deref()));
    }

    /// Blames a bundle for one of its entries.
    fn blame_entry(&mut self, bundle: &Found, position: u64, problem: Problem) {
        let entries = bundle.bytes.as_ref().and_then(|bytes| parse_bundle(bytes).ok());
        let entry = entries.and_then(|entries| entries.into_iter().nth(usize::try_from(position).ok()?));
        self.state.tally.damage(Damage::new(bundle.path, problem, entry.as_deref()));
    }

    /// Blames an object that is well formed, but not the tree's. Without anything above it, its counterpart has been
    /// blamed, and it may be good.
    fn blame_stray(&mut self, found: &Found, tile_path: TilePath, leaves: &[Hash], above: Option<Hash>) {
        let roots = if tile_path.is_partial() {
            self.root_with(tile_path, leaves).map(|got| (self.state.checkpoint.root_hash(), got))
        } else {
            above.map(|expected| (expected, merkle::root(leaves)))
        };
        if let Some((expected, got)) = roots {
            self.blame(found, Problem::Root { expected, got });
        }
    }

    /// Blames the tiles below a good one for every hash that they do not lead to, and what they were made of.
    fn blame_below(&mut self, path: TilePath, computed: &[Hash], stored: &[Hash]) {
        let TileContent::Hashes(level @ 1..) = path.content() else { return };
        self.state.drop_points();
        let first = path.index() * u64::from(TILE_WIDTH);
        for (index, (got, expected)) in (first..).zip(computed.iter().zip(stored)) {
            if got != expected {
                let problem = Problem::Root { expected: *expected, got: *got };
                let tile = TilePath::hashes(level - 1, index, TILE_WIDTH);
                let bundle = (level == 1).then(|| TilePath::entries(index, TILE_WIDTH)).flatten();
                for path in [tile, bundle].into_iter().flatten() {
                    self.state.tally.damage(Damage::new(path, problem.clone(), None));
                }
            }
        }
    }
}
