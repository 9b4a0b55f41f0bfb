package doctor

import (
	"encoding/binary"
	"hash/crc32"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// keep makes a broker answer one kind of request by a function until it is closed.
func keep(cluster *kfake.Cluster, key kmsg.Key, answer func(kmsg.Request) (kmsg.Response, error, bool)) {
	cluster.ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		return answer(req)
	})
}

// TestALyingBrokerIsFoundOut: each broker breaks one promise, and the step that rests on it says so.
func TestALyingBrokerIsFoundOut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		opts  []kfake.Opt
		lie   func(*kfake.Cluster)
		found map[string]Verdict
	}{
		{
			name: "it gives the same epoch again", lie: func(c *kfake.Cluster) { answerInit(c, func(claim, int) claim { return claim{7, 0} }) },
			found: map[string]Verdict{"next epoch": Unfit, "before the claim": Skipped, "two owners": Unfit},
		},
		{
			name: "it gives another producer each time", lie: func(c *kfake.Cluster) {
				answerInit(c, func(_ claim, n int) claim { return claim{int64(1000 + n), 0} })
			},
			found: map[string]Verdict{"next epoch": Unfit, "two owners": Unfit, "writer": Unfit},
		},
		{
			name: "it fences nobody and stores twice", lie: forgetProducers,
			found: map[string]Verdict{
				"next epoch": Fit, "old epoch": Unfit, "claim repeated": Unfit, "gap in the sequence": Unfit, "epoch 32767": Unfit, "log": Unfit,
			},
		},
		{
			name: "it acknowledges the former owner, and stores nothing of it", lie: func(c *kfake.Cluster) { answerVoid(c, 0, 77) },
			found: map[string]Verdict{"old epoch": Unfit, "contiguous offsets": Unfit, "log": Unfit, "epoch 32767": Unfit},
		},
		{
			name: "it refuses the former owner by another code", lie: func(c *kfake.Cluster) { answerVoid(c, kerr.InvalidRecord.Code, -1) },
			found: map[string]Verdict{"old epoch": Unfit, "epoch 32767": Unfit, "contiguous offsets": Fit, "log": Fit},
		},
		{
			name: "it acknowledges, and stores nothing", opts: []kfake.Opt{kfake.BlackholeProduce()},
			found: map[string]Verdict{"old epoch": Fit, "stamps": Unfit, "log": Unfit},
		},
		{
			name: "it takes what is damaged", lie: mendChecksums,
			found: map[string]Verdict{"batch with a false checksum": Unfit},
		},
		{
			name: "it refuses the owner's renewal", lie: func(c *kfake.Cluster) {
				keep(c, kmsg.InitProducerID, func(req kmsg.Request) (kmsg.Response, error, bool) {
					if req.(*kmsg.InitProducerIDRequest).ProducerID < 0 {
						return nil, nil, false
					}
					resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
					resp.ErrorCode = kerr.ProducerFenced.Code
					return resp, nil, true
				})
			},
			found: map[string]Verdict{"renewal of the superseded": Fit, "renewal of the owner": Unfit, "two owners": Fit},
		},
		{
			name: "it takes anybody for a member", lie: func(c *kfake.Cluster) {
				keep(c, kmsg.Heartbeat, func(req kmsg.Request) (kmsg.Response, error, bool) { return req.ResponseKind(), nil, true })
			},
			found: map[string]Verdict{"heartbeat": Unfit},
		},
		{
			name: "it has no topic ids", opts: []kfake.Opt{kfake.MaxVersions(kversion.V2_7_0())},
			found: map[string]Verdict{"versions": Unfit, "topic id": Unfit},
		},
		{
			name: "it knows topics by name only", opts: []kfake.Opt{kfake.MaxVersions(kversion.V3_7_0())},
			found: map[string]Verdict{"versions": Fit, "topic id": Warning, "log": Fit},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cluster, cfg := liar(t, c.opts...)
			if c.lie != nil {
				c.lie(cluster)
			}
			report := examine(t, cfg)
			want(t, report, c.found)
			for _, verdict := range c.found {
				if verdict == Unfit {
					wantVerdict(t, report, Unfit)
				}
			}
			wantNothingLeft(t, cfg)
		})
	}
}

// TestWithoutRightsToLookTheDefaultsAreAssumed: what the writer does without is a warning.
func TestWithoutRightsToLookTheDefaultsAreAssumed(t *testing.T) {
	t.Parallel()
	cluster, cfg := liar(t)
	keep(cluster, kmsg.DescribeProducers, func(req kmsg.Request) (kmsg.Response, error, bool) {
		resp := req.ResponseKind().(*kmsg.DescribeProducersResponse)
		for _, t := range req.(*kmsg.DescribeProducersRequest).Topics {
			rt := kmsg.DescribeProducersResponseTopic{Topic: t.Topic}
			for _, p := range t.Partitions {
				rt.Partitions = append(rt.Partitions, kmsg.DescribeProducersResponseTopicPartition{Partition: p, ErrorCode: kerr.TopicAuthorizationFailed.Code})
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	keep(cluster, kmsg.DescribeConfigs, func(req kmsg.Request) (kmsg.Response, error, bool) {
		resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
		for _, r := range req.(*kmsg.DescribeConfigsRequest).Resources {
			if r.ResourceType != kmsg.ConfigResourceTypeBroker {
				return nil, nil, false
			}
			resp.Resources = append(resp.Resources, kmsg.DescribeConfigsResponseResource{
				ResourceType: r.ResourceType, ResourceName: r.ResourceName, ErrorCode: kerr.ClusterAuthorizationFailed.Code,
			})
		}
		return resp, nil, true
	})
	report := examine(t, cfg)
	wantVerdict(t, report, Fit)
	want(t, report, map[string]Verdict{"producers": Warning, "expirations": Warning, "message size": Fit, "writer": Fit})
}

type claim struct {
	pid   int64
	epoch int16
}

// answerInit answers InitProducerID by a function of what was asked with, and of how many came
// before.
func answerInit(cluster *kfake.Cluster, answer func(claim, int) claim) {
	n := 0 // control functions run one after the other
	keep(cluster, kmsg.InitProducerID, func(req kmsg.Request) (kmsg.Response, error, bool) {
		asked := req.(*kmsg.InitProducerIDRequest)
		resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
		got := answer(claim{asked.ProducerID, asked.ProducerEpoch}, n)
		n++
		resp.ProducerID, resp.ProducerEpoch = got.pid, got.epoch
		return resp, nil, true
	})
}

// header bytes of a batch, see wire.go.
const (
	atProducerID = 43
	atEpoch      = 51
	atSequence   = 53
)

// eachBatch lets a function change, or answer, every batch of a produce request.
func eachBatch(cluster *kfake.Cluster, change func(raw []byte) (answer bool, code int16, offset int64)) {
	var mu sync.Mutex
	keep(cluster, kmsg.Produce, func(req kmsg.Request) (kmsg.Response, error, bool) {
		mu.Lock()
		defer mu.Unlock()
		asked := req.(*kmsg.ProduceRequest)
		for _, t := range asked.Topics {
			for _, p := range t.Partitions {
				if answer, code, offset := change(p.Records); answer {
					resp := req.ResponseKind().(*kmsg.ProduceResponse)
					rt := kmsg.NewProduceResponseTopic()
					rt.Topic, rt.TopicID = t.Topic, t.TopicID
					rp := kmsg.NewProduceResponseTopicPartition()
					rp.Partition, rp.ErrorCode, rp.BaseOffset = p.Partition, code, offset
					rt.Partitions = append(rt.Partitions, rp)
					resp.Topics = append(resp.Topics, rt)
					return resp, nil, true
				}
			}
		}
		return nil, nil, false
	})
}

func mend(raw []byte) {
	binary.BigEndian.PutUint32(raw[atChecksum:], crc32.Checksum(raw[atAttributes:], castagnoli))
}

// forgetProducers makes every batch one of nobody: a broker without idempotence.
func forgetProducers(cluster *kfake.Cluster) {
	eachBatch(cluster, func(raw []byte) (bool, int16, int64) {
		for i := range raw[atProducerID : atSequence+4] {
			raw[atProducerID+i] = 0xff
		}
		mend(raw)
		return false, 0, 0
	})
}

func mendChecksums(cluster *kfake.Cluster) {
	eachBatch(cluster, func(raw []byte) (bool, int16, int64) { mend(raw); return false, 0, 0 })
}

// answerVoid answers every batch whose epoch is below the highest that its producer wrote under.
func answerVoid(cluster *kfake.Cluster, code int16, offset int64) {
	highest := map[uint64]int16{}
	eachBatch(cluster, func(raw []byte) (bool, int16, int64) {
		pid, epoch := binary.BigEndian.Uint64(raw[atProducerID:]), int16(binary.BigEndian.Uint16(raw[atEpoch:]))
		if epoch < highest[pid] {
			return true, code, offset
		}
		highest[pid] = epoch
		return false, 0, 0
	})
}
