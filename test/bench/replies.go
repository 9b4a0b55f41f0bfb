package main

import (
	"context"
	"time"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// replies reads a namespace's reply topic from its present end on.
type replies struct {
	consumer *kgo.Client
	codec    *codec.Codec
	binding  *codec.Binding
}

func (b *bench) readReplies(ns string, registry codec.Reader) (*replies, error) {
	r := &replies{codec: codec.New(registry, codec.Config{})}
	var err error
	if r.binding, err = r.codec.Bind(b.ctx, codec.ReplyDef()); err != nil {
		return nil, err
	}
	from, err := b.fromEnd(topics.Replies(ns))
	if err != nil {
		return nil, err
	}
	r.consumer, err = kgo.NewClient(b.opts(kgo.ConsumePartitions(from))...)
	return r, err
}

// fromEnd has a topic read from where it ends now.
func (b *bench) fromEnd(topic string) (map[string]map[int32]kgo.Offset, error) {
	ends, err := b.admin.ListEndOffsets(b.ctx, topic)
	if err != nil {
		return nil, err
	}
	from := map[int32]kgo.Offset{}
	ends.Each(func(o kadm.ListedOffset) { from[o.Partition] = kgo.NewOffset().At(o.Offset) })
	return map[string]map[int32]kgo.Offset{topic: from}, ends.Error()
}

// each hands over the replies, with the time at which their poll came, until close.
func (r *replies) each(take func(codec.Reply, time.Time), failed func(error)) {
	for {
		fetches := r.consumer.PollFetches(context.Background())
		if fetches.IsClientClosed() {
			return
		}
		now := time.Now()
		fetches.EachRecord(func(rec *kgo.Record) {
			reply, err := r.decode(rec)
			if err != nil {
				failed(err)
				return
			}
			take(reply, now)
		})
	}
}

func (r *replies) decode(rec *kgo.Record) (codec.Reply, error) {
	payload, err := r.codec.Inspect(context.Background(), codec.TypeReply, rec.Value)
	if err != nil {
		return codec.Reply{}, err
	}
	decoded, err := r.binding.Decode(payload)
	if err != nil {
		return codec.Reply{}, err
	}
	return decoded.(codec.Reply), nil
}

func (r *replies) close() { r.consumer.Close() }
