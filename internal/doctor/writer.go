package doctor

import (
	"context"
	"errors"
	"fmt"

	"github.com/foldstream/foldstream/internal/engine/appender"
)

// writing is the take-over once more, by the writer that ingest runs.
type writing struct {
	x    *exam
	next int64 // where the log must go on
}

func (x *exam) writer() scenario {
	w := &writing{x: x}
	return scenario{{
		name:  "writer",
		did:   "two of ingest's own writers: the first claims and appends, the second takes over and appends, the first appends again",
		needs: "the second's claim stands where the first ended; the first is fenced, the second goes on without a gap and proves its ownership",
		run:   w.run,
	}}
}

// writerRecords is what each writer appends, one entry each.
const writerRecords = 3

func (w *writing) run(ctx context.Context) outcome {
	const means = "what ingest runs does not work on this broker; the steps above say which part of it"
	first, err := w.open()
	if err != nil {
		return failed(err, means, w.x.grantScratch())
	}
	defer first.Close()
	second, err := w.open()
	if err != nil {
		return failed(err, means, w.x.grantScratch())
	}
	defer second.Close()
	one, err := w.claim(ctx, first, appender.LastClaim{}, "doctor-one")
	if err == nil {
		err = w.append(ctx, one)
	}
	if err != nil {
		return failed(err, means, w.x.grantScratch())
	}
	two, err := w.claim(ctx, second, appender.LastClaim{Claim: one.Held(), Known: true}, "doctor-two")
	if err != nil {
		return failed(err, means, w.x.grantScratch())
	}
	if two.ClaimOffset() != w.next {
		return unfit(fmt.Sprintf("the second claim stands at offset %d, the first writer ended at %d", two.ClaimOffset(), w.next), twoOwners, notHere)
	}
	w.next = two.ClaimOffset() + 1
	if err := fate(ctx, one); !errors.Is(err, appender.ErrFenced) {
		return unfit(fmt.Sprintf("the first writer's append after the take-over ended by: %v", err), twoOwners, notHere)
	}
	if err := w.append(ctx, two); err != nil {
		return failed(err, means, w.x.grantScratch())
	}
	if err := prove(ctx, two); err != nil {
		return failed(err, "an owner cannot prove that it is one: conflicts and rejections are not answered", w.x.grantScratch())
	}
	return fit("the first was fenced, the second appended %d records from offset %d on and proved itself", writerRecords, two.ClaimOffset()+1)
}

func (w *writing) open() (*appender.Appender, error) {
	return appender.New(appender.Config{Opts: w.x.cfg.Kafka, Logger: w.x.cfg.Logger, Clock: w.x.cfg.Clock})
}

func (w *writing) claim(ctx context.Context, a *appender.Appender, last appender.LastClaim, instance string) (*appender.Writer, error) {
	l := w.x.scratch.lanes[laneWriter]
	p := appender.Partition{Topic: w.x.scratch.name, TopicID: w.x.scratch.id, Partition: l.partition, TransactionalID: l.txn}
	writer, err := a.Claim(ctx, p, appender.ClaimInfo{Group: w.x.group(), Instance: instance}, last, nil)
	if err == nil && w.next == 0 {
		w.next = writer.ClaimOffset() + 1
	}
	return writer, err
}

// append writes entries one after the other, which must follow each other in the log.
func (w *writing) append(ctx context.Context, writer *appender.Writer) error {
	for range writerRecords {
		offset, err := write(ctx, writer)
		if err != nil {
			return err
		}
		if offset != w.next {
			return fmt.Errorf("an append stands at offset %d, expected at %d", offset, w.next)
		}
		w.next++
	}
	return nil
}

func write(ctx context.Context, writer *appender.Writer) (int64, error) {
	told := make(chan appender.Result, 1)
	writer.Append([]appender.Record{{Key: []byte("doctor"), Value: []byte("writer")}}, func(r appender.Result) { told <- r })
	writer.Flush()
	select {
	case r := <-told:
		return r.Offset, r.Err
	case <-ctx.Done():
		return -1, context.Cause(ctx)
	}
}

func fate(ctx context.Context, writer *appender.Writer) error {
	_, err := write(ctx, writer)
	return err
}

func prove(ctx context.Context, writer *appender.Writer) error {
	told := make(chan error, 1)
	writer.Prove(func(err error) { told <- err })
	writer.Flush()
	select {
	case err := <-told:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
