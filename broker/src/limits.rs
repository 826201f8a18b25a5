//! Every bound of the system, in one place. A queue, a loop or a buffer without one is a bug.

use std::time::Duration;

const MIB: usize = 1024 * 1024;

/// Version of every message, written as `"v"`. Another version is refused with a clear reason.
pub const WIRE_VERSION: u32 = 1;

/// Most tasks one bag may have.
pub const BAG_TASKS_MAX: u32 = 4_000_000;
/// Largest input one task may have, in bytes.
pub const INPUT_BYTES_MAX: u64 = 1 << 40;
/// Largest output one task may have, in bytes: no codec doubles its input.
pub const OUTPUT_BYTES_MAX: u64 = 2 * INPUT_BYTES_MAX;
/// Highest round of a task: a person who runs it again, or five losses, begin one.
pub const ROUND_MAX: u32 = 1_000_000;
/// Longest duration and latest time since 1970 that is believed, in µs: more than a thousand years, so that a clock that
/// was never set is no reason to refuse a result.
pub const TIME_US_MAX: u64 = 1 << 55;
/// Largest JSON payload we send or read, in bytes: `nats stream view` must be able to show it.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024 - 1;
/// Longest bag id, in bytes.
pub const BAG_ID_BYTES_MAX: usize = 64;
/// Longest failure message kept in a result, in bytes.
pub const FAILURE_BYTES_MAX: usize = 1024;
/// Longest other text in a descriptor or a result, in bytes: names of files, objects, buckets, hosts,
/// libraries. With all of them, each byte escaped, a result that carries its descriptor is a message.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Most files of one pack: their results are one message.
pub const PACK_FILES_MAX: u32 = 64;
/// Most input bytes of one pack: its outputs are one chunk, whatever the codec makes of them.
pub const PACK_BYTES_MAX: u64 = 448 * 1024;
/// Most arrays of one pack, if a codec takes them: their results say more of each.
pub const PACK_ARRAYS_MAX: u32 = 32;
/// A bag has at least so many packs, by files and by bytes, before they get that large: all workers are to have some.
pub const PACKS_MIN: u32 = 256;
/// How many times a pack is attempted before its files are run alone.
pub const PACK_ATTEMPTS: u32 = 2;
/// Bytes of a file that a block has, unless somebody chooses otherwise. A block starts without the text before it, which costs
/// 0.02 % of the size of text at 8 MiB.
pub const BLOCK_BYTES_DEFAULT: u64 = 8 << 20;
/// Files of more bytes than this are cut into blocks, unless somebody chooses otherwise.
pub const BLOCK_ABOVE: u64 = 64 << 20;
/// Least bytes of a block: each is a task of its own.
pub const BLOCK_BYTES_MIN: u64 = 1 << 20;
/// Output bytes that a gatherer joins before it makes them durable and removes the blocks that they were made of.
pub const JOIN_WINDOW: u64 = 64 << 20;
/// After so long without another block, what is joined is made durable, whatever it is.
pub const JOIN_SETTLES_AFTER: Duration = Duration::from_secs(1);
/// Longest message of a failure of one file of a pack, in bytes.
pub const MEMBER_MESSAGE_BYTES_MAX: usize = 96;
/// What of the result of a pack is about one file, in bytes.
const MEMBER_BYTES_MAX: usize = 640;
/// The same of the descriptor that the result of a pack carries which was restored: it names no file.
const PACK_DESCRIPTOR_BYTES_MAX: usize = 1024;

/// Unit of a tar, in bytes: a header has one, and what follows it is filled up to whole ones.
pub const TAR_BLOCK_BYTES: u64 = 512;
/// Longest name of a file in the tar of a pack, in bytes, with the extension of its output: one with a longer name is run alone.
pub const TAR_NAME_BYTES_MAX: usize = 1024;
/// What a file takes in a tar at most besides its content, in bytes: a header and its filling, and the same of a long name.
pub const TAR_EACH_BYTES: u64 =
    3 * TAR_BLOCK_BYTES + (TAR_NAME_BYTES_MAX as u64 + 1).next_multiple_of(TAR_BLOCK_BYTES);
/// What ends a tar, in bytes.
pub const TAR_END_BYTES: u64 = 2 * TAR_BLOCK_BYTES;
/// Largest tar of a pack, in bytes, of its inputs or of its outputs.
pub const TAR_BYTES_MAX: u64 =
    CHUNK_BYTES as u64 + PACK_FILES_MAX as u64 * TAR_EACH_BYTES + TAR_END_BYTES;
/// What a bucket has for each task in addition to its input, in bytes: metadata of an object, and what its messages take.
pub const OBJECT_EACH_BYTES: u64 = 4096;

/// Most slots one worker may have.
pub const SLOTS_MAX: usize = 1024;
/// How long a worker holds a delivery before the broker hands it to another.
pub const LEASE: Duration = Duration::from_secs(10);
/// How often a busy worker renews its leases.
pub const LEASE_RENEWAL: Duration = Duration::from_millis(3_300);
/// How much work a worker may hold beyond what it executes.
pub const PULL_AHEAD_WORK: Duration = Duration::from_millis(50);
/// Below this much work in hand a slot asks for more, so that it never waits for an answer; earlier, where it had to.
pub const PULL_AHEAD_LOW: Duration = Duration::from_millis(4);
/// Most deliveries a slot may hold ahead of the one that it executes.
pub const PULL_AHEAD_MAX: usize = 64;
/// How long one pull request waits at the server. Short: a worker that drains waits for its end.
pub const PULL_EXPIRES: Duration = Duration::from_millis(500);
/// After this long without any answer a pull request counts as lost.
pub const PULL_LOST: Duration = Duration::from_secs(3);
/// Fewest threads of one kind that wait for files at a time, however few cores there are: a disk of another machine
/// takes its time for each.
pub const FILE_THREADS_MIN: usize = 8;
/// Most threads of one kind that wait for files at a time: more do not make a disk faster, and each takes memory of its
/// own. See [`file_threads`].
pub const FILE_THREADS_MAX: usize = 16;
/// Most results a slot may have made and not yet committed.
pub const UNCOMMITTED_MAX: usize = 64;
/// Most outputs of a slot in flight to their place, besides the one that it makes.
pub const UPLOADS_PER_SLOT: usize = 2;
/// How long an execution may take, from its start to its output being in its place, before it is looked at how far it got.
pub const TASK_TIME_BASE: Duration = Duration::from_mins(10);
/// For each so many bytes of input that it has compressed it may take a second more: as slow as the slowest link or
/// processor that is worth a slot.
pub const TASK_BYTES_PER_SECOND_MIN: u64 = 128 * 1024;
/// How often that is looked at.
pub const TASK_TIME_LOOKED_AT: Duration = Duration::from_millis(250);
/// How many times a task is attempted before it is reported failed.
pub const ATTEMPTS_DEFAULT: u32 = 3;
/// Most attempts anybody may ask for.
pub const ATTEMPTS_MAX: u32 = 1_000;
/// How often the bytes of a task's outputs may vanish before they get their name, until it has failed:
/// no program's fault, hence no attempt spent, and yet not to be tried without an end.
pub const BYTES_LOST_MAX: u32 = 5;
/// First delay of a delivery that is given back.
pub const GIVE_BACK_DELAY: Duration = Duration::from_millis(200);
/// Longest delay of a delivery that is given back; delays double from [`GIVE_BACK_DELAY`].
pub const GIVE_BACK_DELAY_MAX: Duration = Duration::from_mins(1);
/// Longest such delay where there was no room: it may be made at any moment, and the bag goes on then.
pub const FULL_DELAY_MAX: Duration = Duration::from_secs(5);
/// Longest such delay where a member of the queue group had another version of the codec's library, and some other
/// has the right one.
pub const UNFIT_DELAY_MAX: Duration = Duration::from_secs(1);
/// How long a worker remembers that a bag's gatherer is absent.
pub const GATHERER_ABSENT_FOR: Duration = Duration::from_secs(5);
/// A delay that lasts less long than this is not worth to be cut short; and it may be over before who
/// cuts it is heard.
pub const WAKE_LEAST: Duration = Duration::from_secs(1);
/// A delivery is called delayed so long after its record: the delaying answer comes behind that.
pub const WAKE_AFTER: Duration = Duration::from_millis(500);
/// How often delayed tasks are looked for, while there may be some.
pub const WAKE_EVERY: Duration = Duration::from_secs(1);
/// Most delayed tasks that a gatherer keeps track of at a time.
pub const DELAYED_MAX: usize = 16_384;
/// How often a worker says what it holds.
pub const HELD_EVERY: Duration = Duration::from_millis(50);
/// How many deliveries one `held` event can name: about 150 bytes each, in one message.
pub const HELD_PER_EVENT: usize = 256;

/// How often a worker that serves the queue group meanwhile looks for the streams.
pub const STREAMS_LOOKED_FOR: Duration = Duration::from_secs(1);
/// How long it looks for them all the time first: a local run starts its workers while it makes the streams.
pub const STREAMS_SOON: Duration = Duration::from_secs(2);
/// After how long it looks again then, and each time so much later: twenty looks in all.
pub const STREAMS_SOON_EVERY: Duration = Duration::from_millis(10);
/// How long an offer waits for its answer; about 1 in 4,000 vanishes between a membership's SUB and UNSUB.
pub const OFFER_ANSWERED_WITHIN: Duration = Duration::from_millis(100);
/// Most offers of one gatherer in flight.
pub const OFFERS_MAX: usize = 256;
/// First wait after *no responders* to an offer; it doubles.
pub const OFFER_AGAIN: Duration = Duration::from_millis(1);
/// Longest such wait while somebody executes a task of the bag, and so may become idle.
pub const OFFER_AGAIN_BUSY: Duration = Duration::from_millis(4);
/// Longest such wait while nobody does.
pub const OFFER_AGAIN_MAX: Duration = Duration::from_millis(50);
/// How long a worker is a member without an offer before it joins again: a membership may be lost on its way too.
pub const MEMBER_FOR: Duration = Duration::from_secs(5);
/// How often a gatherer looks for leases that have run out.
pub const LEASES_LOOKED_AT: Duration = Duration::from_millis(250);
/// After this long without a word of a lease's gatherer its worker gives the task up.
pub const GATHERER_GONE_AFTER: Duration = Duration::from_secs(30);
/// Outcomes that a gatherer has received and not yet counted.
pub const OUTCOMES_MAX: usize = 4_096;

/// Files of packs among them.
pub const OUTCOME_FILES_MAX: usize = 4 * OUTCOMES_MAX;

/// How often the gatherer probes each busy worker.
pub const PROBE_EVERY: Duration = Duration::from_millis(100);
/// How long after one *no responders* a worker is probed again before it is called dead.
pub const PROBE_AGAIN: Duration = Duration::from_millis(50);
/// For this long after its own reconnect the gatherer calls nobody dead.
pub const PROBE_AFTER_RECONNECT: Duration = Duration::from_secs(2);
/// How long a task may be with nobody who speaks of it, after a worker was lost, until it is given back.
pub const UNHELD_FOR: Duration = Duration::from_millis(250);
/// Most tasks that are looked at for that.
pub const UNHELD_MAX: usize = 1_024;
/// Most probes per second that one gatherer sends.
pub const PROBES_PER_SECOND: usize = 500;
/// How often a gatherer renews its lease in KV `bags`, at most.
pub const GATHERER_RENEWAL: Duration = Duration::from_secs(1);
/// A gatherer that did not renew its lease for this long is dead: another may take the bag over.
pub const GATHERER_LEASE: Duration = Duration::from_secs(5);
/// How long a gatherer watches whether somebody renews what its line was overwritten with and cannot be read, before it
/// writes it again: shorter than the wait of a gatherer that wants to take the bag over.
pub const OVERWRITTEN_FOR: Duration = Duration::from_secs(3);
/// How long what says that a bag was removed outlives it: a server that is killed brings back what it had
/// dropped, as long as its files still have it.
pub const REMOVED_FOR: Duration = Duration::from_hours(7 * 24);
/// Bags of which a worker remembers whether they were cancelled.
pub const BAGS_REMEMBERED: usize = 256;
/// How long `rm` waits until no worker holds a task of the bag that it removes.
pub const RELEASED_WITHIN: Duration = Duration::from_secs(10);
/// How long a command waits for the workers' answers about themselves.
pub const WORKERS_ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// Give-backs that a run folder keeps when its server is gone.
pub const ATTEMPTS_FILE_MAX: usize = 100_000;
/// Most workers a gatherer keeps track of.
pub const WORKERS_MAX: usize = 10_000;

/// Bytes of one chunk, staged or in a bucket: two fit in the server's default `max_payload` of 1 MiB.
pub const CHUNK_BYTES: usize = 512 * 1024;
/// Most chunks of one transfer in flight.
pub const WINDOW_MAX: usize = 8;
/// Bytes in flight to one gatherer, all uploads together: far below the server's 64 MiB a connection.
pub const WINDOWS_BYTES: usize = 24 * MIB;
/// Most uploads in chunks that one gatherer has begun: who brought least makes room for who brings more.
pub const UPLOADS_MAX: usize = 4_096;
/// Executions that a gatherer remembers to have given leave, and of which it has no chunk yet; the last ones. An upload of
/// another is opened again, which works as long as no more than these are opened between an OPEN and what follows.
pub const OPENED_MAX: usize = 16_384;
/// Bytes of what arrived at a gatherer and is not written, or is being answered, all senders together. A sender gets no
/// more of it than it leaves free.
pub const ARRIVED_BYTES: usize = 64 * MIB;
/// What a message takes of that in addition to its payload: its task, its answer, its place in every list.
pub const ARRIVED_EACH_BYTES: usize = 4 * 1024;
/// A sender that must send again for lack of this memory is told so after this time.
pub const ARRIVED_AGAIN: Duration = Duration::from_millis(250);
/// An upload without a chunk for this long keeps its part file and no more; a later chunk takes it up.
pub const UPLOAD_IDLE: Duration = Duration::from_secs(30);
/// Outputs that arrived and have no name yet, of which a gatherer remembers what it read: the others are read again.
pub const CLOSED_MAX: usize = 8_192;
/// Chunks of inputs that one worker asks for at a time.
pub const INPUTS_ASKED_MAX: usize = 256;
/// Most input files that a gatherer keeps open.
pub const OPEN_INPUTS_MAX: usize = 64;
/// How long a request between worker and gatherer may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server remembers, between two accounts, where many answers to one request go: it cannot know which is
/// the last, and a worker makes thousands of such requests a second.
pub const ANSWERS_REMEMBERED: Duration = Duration::from_secs(10);
/// Outputs that arrive within this time share one `syncfs`.
pub const SYNC_WITHIN: Duration = Duration::from_millis(2);
/// Most outputs that share one `syncfs`.
pub const SYNC_BATCH: usize = 64;
/// Free bytes below which a run folder counts as full, on a disk that is large enough.
pub const DISK_FREE_MIN: u64 = 16 * 1024 * 1024;
/// On a small disk it is this part of its size: one of 512 MiB has the same bound by both.
pub const DISK_FREE_SHARE: u64 = 32;
/// How long a bag tries to make the folder of its part files, while other bags that end remove the empty folder around it.
pub const PART_FOLDER_WITHIN: Duration = Duration::from_secs(10);
/// Longest nonce that tells a worker that its gatherer sees the same folder, in bytes. Ours has 24.
pub const NONCE_BYTES_MAX: usize = 64;
/// Lines of a log that wait for the disk; more are lost.
pub const LOG_LINES_MAX: usize = 4_096;
/// How long a process that ends waits for the last lines of its log.
pub const LOG_WAIT: Duration = Duration::from_secs(1);
/// What the gatherer's disk has not done within this time makes it a disk that hangs: nobody is given leave
/// to execute, with a message.
pub const DISK_HANGS_AFTER: Duration = Duration::from_secs(2);
/// A worker that waits for the gatherer's disk is asked to come again after this time: before it takes its
/// request for lost.
pub const DISK_WAIT: Duration = Duration::from_secs(8);

/// Inputs that a producer puts into a bucket at a time: enough small ones to keep the server busy.
pub const OBJECTS_PUT: usize = 16;
/// Objects that a gatherer checks or fetches at a time.
pub const OBJECTS_FETCHED: usize = 16;
/// From this size on, in bytes, an output takes a noticeable time to be read back.
pub const LARGE_OUTPUT_BYTES: u64 = 64 * 1024 * 1024;
/// How many of those are read back at a time.
pub const LARGE_OUTPUTS_READ: usize = 2;
/// A disk that reads and syncs slower than this for one output, in bytes a second, is one that hangs.
pub const DISK_BYTES_PER_SECOND_MIN: u64 = 1024 * 1024;

/// Messages that one batched direct get asks for.
pub const GET_BATCH: usize = 16;
/// Bytes that one batched direct get asks for: the server has no flow control inside a batch.
pub const GET_BATCH_BYTES: usize = 8 * MIB;
/// How long a read of one batch of chunks may take.
pub const GET_DEADLINE: Duration = Duration::from_secs(10);
/// How many times a read that found chunks missing looks again before it says that they are lost.
pub const GET_RETRIES: u32 = 3;
/// Bytes of inputs that a producer keeps in a bag's input bucket.
pub const INPUT_WINDOW_BYTES: u64 = 256 * 1024 * 1024;

/// Descriptors in flight to the server.
pub const SUBMIT_WINDOW: usize = 1_000;
/// Results that a gatherer takes in one go.
pub const GATHER_BATCH: usize = 512;
/// Bytes of results that it takes in one go: those of packs are long.
pub const GATHER_BATCH_BYTES: usize = 4 * MIB;
/// How long a call that met a passing fault waits before it tries again.
pub const RETRY_WAIT: Duration = Duration::from_millis(250);
/// How long streams are tried to be made while the server does not answer in time.
pub const STREAMS_MADE_WITHIN: Duration = Duration::from_secs(20);
/// How many times a commit is tried while the broker does not answer.
pub const COMMIT_TRIES: u32 = 40;
/// How long a command waits for a server to answer its first connect.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries to reach a server that may be just starting.
pub const CONNECT_AGAIN: Duration = Duration::from_millis(100);
/// How long a command waits for a server before it says so.
pub const CONNECT_NOTICE: Duration = Duration::from_millis(500);
/// How long a worker does: it may be started together with its server.
pub const WORKER_NOTICE: Duration = Duration::from_secs(1);
/// Bytes of a file that holds a password, a token, a seed or credentials.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// How long a worker that has just started waits for streams that nobody has made.
pub const STREAMS_WITHIN: Duration = Duration::from_secs(20);
/// How long a supervised server may take to be ready.
pub const SERVER_READY_WITHIN: Duration = Duration::from_secs(20);
/// Memory that the server of a local run is kept to, as far as its garbage collector can: a bag of objects took 230 to 250 MiB
/// for 40,000 files without it.
pub const LOCAL_SERVER_MEMORY: u64 = 128 << 20;
/// How long a process of ours may take to end after SIGTERM before it is killed.
pub const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How many times a local worker that died is started again.
pub const RESPAWNS_MAX: u32 = 3;
/// Without an outcome for this long, `run` says why.
pub const QUIET_NOTICE: Duration = Duration::from_secs(3);
/// Without an outcome for this long, a bag is reconciled.
pub const RECONCILE_AFTER: Duration = Duration::from_secs(10);
/// Generated bags up to this size get a `stats_N.json` for each task.
pub const STATS_FILES_MAX: u32 = 1_000;

/// Bytes that the stream of waiting tasks may hold.
pub const TASKS_BYTES: i64 = 4 << 30;
/// Bytes that the stream of results may hold.
pub const RESULTS_BYTES: i64 = 4 << 30;
/// Bytes that the stream of attempts may hold.
pub const ATTEMPTS_BYTES: i64 = 1 << 30;
/// Attempt records kept for each task.
pub const ATTEMPTS_KEPT: i64 = 32;

/// Threads of one kind that wait for files at a time: two for each core, as one waits while the other computes a digest.
/// Outputs that arrive have so many, and as many have inputs that are read for workers.
#[must_use]
pub fn file_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (2 * cores).clamp(FILE_THREADS_MIN, FILE_THREADS_MAX)
}

/// Threads of a process that wait for anything, besides those that compress: enough for every kind of work to have all
/// that it may have, and for what does one thing at a time, such as names, the ledger, status, the look-up of a host. A
/// disk that hangs takes no thread from what has nothing to do with it.
#[must_use]
pub fn blocking_threads() -> usize {
    let one_at_a_time = 16;
    2 * file_threads() + OBJECTS_PUT + OBJECTS_FETCHED + one_at_a_time
}

/// Characters of a token that somebody keeps for a server of ours, at least: fewer have less than 128 bits.
pub const TOKEN_CHARS_MIN: usize = 22;
/// And at most.
pub const TOKEN_CHARS_MAX: usize = 256;

// Two renewals may be lost before a healthy worker loses its lease.
const _: () = assert!(LEASE_RENEWAL.as_millis() * 3 < LEASE.as_millis());
const _: () = assert!(GATHERER_RENEWAL.as_millis() * 3 < GATHERER_LEASE.as_millis());
const _: () = assert!(GATHERER_RENEWAL.as_millis() * 2 < OVERWRITTEN_FOR.as_millis());
const _: () = assert!(OVERWRITTEN_FOR.as_millis() < GATHERER_LEASE.as_millis());
const _: () = assert!(LEASE.as_millis() < GATHERER_GONE_AFTER.as_millis());
const _: () = assert!(WAKE_AFTER.as_millis() < WAKE_LEAST.as_millis());
// After a longer wait, the request is repeated.
const _: () = assert!(ANSWERS_REMEMBERED.as_secs() >= GET_DEADLINE.as_secs());
const _: () = assert!(ANSWERS_REMEMBERED.as_secs() > PULL_LOST.as_secs());
const _: () = assert!(OUTCOMES_MAX >= GATHER_BATCH);
const _: () = assert!(PULL_AHEAD_LOW.as_millis() < PULL_AHEAD_WORK.as_millis());
const _: () = assert!(PULL_EXPIRES.as_millis() * 2 < PULL_LOST.as_millis());
const _: () = assert!(WINDOW_MAX * CHUNK_BYTES <= WINDOWS_BYTES);
const _: () = assert!(WINDOWS_BYTES * 2 < 64 * MIB);
// A single sender gets half of the budget at most, and may use all windows, with the overhead of each chunk.
const _: () = assert!(
    WINDOWS_BYTES + (WINDOWS_BYTES / CHUNK_BYTES + 1) * ARRIVED_EACH_BYTES + CHUNK_BYTES
        <= ARRIVED_BYTES / 2
);
// Half of it must not be taken by the small requests of as many slots as there may be uploads.
const _: () = assert!(UPLOADS_MAX * ARRIVED_EACH_BYTES <= ARRIVED_BYTES / 2);
const _: () = assert!(CHUNK_BYTES < MIB);
const _: () = assert!(6 * (8 * TEXT_BYTES_MAX + FAILURE_BYTES_MAX) + 4096 < MESSAGE_BYTES_MAX);
// The result of a pack: two texts, and for each file two digests and three numbers, and where it is in which tar, by its digest,
// or a printable message; and a descriptor without a name.
const _: () = assert!(
    6 * 2 * TEXT_BYTES_MAX
        + PACK_FILES_MAX as usize * MEMBER_BYTES_MAX
        + PACK_DESCRIPTOR_BYTES_MAX
        + 4096
        < MESSAGE_BYTES_MAX
);
const _: () = assert!(2 * MEMBER_MESSAGE_BYTES_MAX + 80 < MEMBER_BYTES_MAX);
// How near an array came back takes less than all else of a file: three numbers of at most 24 digits, and a digest.
const _: () = assert!(PACK_ARRAYS_MAX * 2 <= PACK_FILES_MAX && 3 * 24 + 71 + 80 < MEMBER_BYTES_MAX);
// An object of its own has each file that is in no pack; in one of two files at least, half of one.
const _: () = assert!(TAR_EACH_BYTES + TAR_END_BYTES / 2 <= OBJECT_EACH_BYTES);
// A tar may be held whole, and with its metadata needs three messages.
const _: () = assert!(TAR_BYTES_MAX <= 2 * CHUNK_BYTES as u64);
// The outputs of a pack are one chunk: an output is at most input + input/256 + 64 bytes (zstd) + name, of 255 bytes.
const _: () = assert!(
    PACK_BYTES_MAX + PACK_BYTES_MAX / 256 + (64 + 255) * PACK_FILES_MAX as u64
        <= CHUNK_BYTES as u64
);
// What a gatherer itself may take to read a large output back is within the time of the task.
const _: () = assert!(TASK_BYTES_PER_SECOND_MIN <= DISK_BYTES_PER_SECOND_MIN);
const _: () = assert!(DISK_WAIT.as_millis() * 2 < TASK_TIME_BASE.as_millis());
const _: () = assert!(STATS_FILES_MAX < BAG_TASKS_MAX);
// The sums of a bag cannot wrap.
const _: () = assert!(OUTPUT_BYTES_MAX < u64::MAX / BAG_TASKS_MAX as u64);
const _: () = assert!(BLOCK_ABOVE > BLOCK_BYTES_DEFAULT && BLOCK_BYTES_DEFAULT > BLOCK_BYTES_MIN);
const _: () = assert!(BLOCK_BYTES_MIN > PACK_BYTES_MAX, "a file is in a pack, or cut, or neither");
