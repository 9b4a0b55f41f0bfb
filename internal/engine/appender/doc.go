// Package appender appends to Kafka partitions that have one owner each, without Kafka
// transactions: a new owner fences the one before through the broker, an append is atomic, and an
// append whose outcome is unknown is settled by sending the same bytes again.
//
//	a, _ := appender.New(cfg)
//	w, _ := a.Claim(ctx, partition, info, last, nil) // the partition is ours from w.ClaimOffset() on
//	w.Append(records, done)                          // gathers
//	w.Flush()                                        // sends; done is told the offset, or the fate
//
// The rules have the numbers of the protocol page (W1 to W17). This page tells the model and, for
// each rule, the sequence of events that it prevents.
//
// # Ownership
//
// Each partition has a transactional id that is used only to ask for a producer id:
// InitProducerID hands every new owner the same producer id with the next epoch. No transaction is
// ever begun. The owner writes plain idempotent batches under (producer id, epoch); from the first
// batch of an epoch on the partition's leader refuses every older epoch of that id.
//
// W1, claim first and alone. The first batch of an owner is a claim record, in a batch of its own,
// acknowledged before anything else is sent. InitProducerID alone fences nobody, as the leader
// learns of an epoch from its first batch:
//
//	B  InitProducerID: epoch 5
//	B  reads the log to its end, decides on that
//	A  (epoch 4) appends: the leader has not heard of epoch 5, stores it
//	B  appends what it decided without A's event
//
// With the claim B reads up to the claim, and nothing of A can come after it. It is alone because
// a fresh partition takes any first sequence number: were it the first of several batches under
// way, its loss would go unnoticed.
//
// W2, other producer ids. The coordinator forgets a transactional id seven days after its last
// InitProducerID, however busy its owner is, and gives out a new producer id near the end of the
// epochs. Two producer ids never fence each other:
//
//	A  owns by producer 7; the coordinator forgets the transactional id
//	B  InitProducerID: producer 8; claims; both can write
//
// So B ends producer 7 on the partition before it claims: by a batch under 7 with epoch 32767,
// which no coordinator gives out. It knows of 7 from the log's last claim and from
// DescribeProducers.
//
// W4, a re-claim never steals. A living owner that renews its claim sends the (producer id, epoch)
// it holds, and is refused when somebody has taken over:
//
//	A  stops for a minute; B claims and appends; A goes on, it is time to renew
//	A  InitProducerID without what it holds: epoch 6, claims: B is fenced by an owner of old
//
// A broker that does not check (the embedded one) is seen through by the claim's offset: unless
// [Writer.ClaimOffset] is the former writer's [Writer.NextOffset], the caller drops all its state.
// Nothing may be under way in the former writer meanwhile, as its own claim would fence it.
//
// # Appending
//
// For each broker there is one goroutine, the sender, with one request under way, which carries at
// most one batch of every partition that the broker leads. Meanwhile the next batches gather:
// there is no linger, the round trip is the gathering time. That is the fastest of the variants
// that were measured, and the only one in which a retry can be decided after a restart of the
// broker: of each producer it then knows the last batch only. With two under way, the first of
// them would be answered OUT_OF_ORDER_SEQUENCE_NUMBER whether it is stored or not. A second
// goroutine that sends would also let two requests overtake each other.
//
// An entry (one Append) is never split over batches, and a batch is stored whole or not at all: so
// the events of one command need no transaction. A sequence number is given when a batch is first
// sent, so that one that was refused before has used none.
//
// Unknown outcome. After a time-out, a lost connection, NOT_LEADER and whatever else may hide a
// stored batch, the same bytes are sent under the same sequence number, to the leader of then,
// until they are acknowledged, fenced, lost or closed. The broker drops the duplicate and answers
// with the first one's offset.
//
// W3, age. A broker forgets an idle producer after a day (producer.id.expiration.ms), and then
// stores a retry a second time and takes batches of owners of old. So no batch is retried beyond
// Config.RetryAgeMax, and the caller keeps an idle writer known by AppendKeepalive and renews its
// claim. Records must be stamped with the wall clock, never with business time: on topics that
// keep the writer's stamps that forgetting counts from them.
//
// W5, contiguity. Each acknowledged batch stands where the one before ended. If not, somebody
// else wrote, and the caller's state is not the log's: the writer is lost.
//
// W15, proofs. An answer that leaves no event (a conflict, a rejection) must not be given by an
// owner that was superseded before it decided:
//
//	A  stops; B claims, appends order-1 version 2; A goes on
//	A  is asked for order-1 at version 1, and says "conflict, it is at 1"
//
// [Writer.Prove] waits for something that was sent after the question: what gathers then, else a
// keep-alive, else, where the replication factor is 1, the leader's end offset. A batch that was
// under way already is no proof, and neither is a heartbeat: its answer may have lain in a socket.
//
// W17, refusals. A batch that the broker refuses for good (too large, bad timestamp) is not
// stored, and its sequence number goes to the next one. But a refusal after an attempt of unknown
// outcome proves nothing, as the broker looks at its limits before it looks for a duplicate: then
// the writer is lost and the caller reads the log. A refusal puts up a barrier, see [Writer].
//
// # What is known of an entry
//
//	acknowledged              it stands at Result.Offset
//	ErrRefused                it is certainly not in the log; the writer lives, behind the barrier
//	FateError, NotSent        it is certainly not in the log; the writer is dead
//	FateError, not NotSent    it was sent and may be in the log, now or soon; the next owner's claim
//	                          settles it: what stands before that claim is stored
//
// # Concurrency
//
// A writer is held by at most one goroutine at a time: by the sender of its leader; by the router,
// which looks for its leader; or by nobody, when nothing is to be done. The holder alone touches
// the batch under way and tells results, so that these come in order. Writer.mu guards what the
// caller's goroutine and the holder share, and nothing is called back under it. Order of locks:
// Writer.mu, then a sender's or the router's.
//
// A buffer goes back to the pool only when a broker answered the request that carried it: after a
// failed request the Kafka client may read it still, and would send another batch's bytes.
//
// # Files
//
//	api.go       what callers see beside Writer: records, results, errors, the interface
//	config.go    Config
//	appender.go  Appender: New, Close, who lives
//	claim.go     Claim: producer id, fencing, the claim record
//	writer.go    Writer: gathering, and what becomes of a batch
//	sender.go    the goroutine of a broker: rounds, requests, answers
//	router.go    finding leaders, retries
//	codes.go     what an error code means
//	batch.go     the bytes of a record batch
package appender
