package appender

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
)

func TestW17Verdicts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code int16
		want verdict
	}{
		{0, verdictAcked},
		{kerr.MessageTooLarge.Code, verdictRefused},
		{kerr.RecordListTooLarge.Code, verdictRefused},
		{kerr.InvalidTimestamp.Code, verdictRefused},
		{kerr.InvalidRecord.Code, verdictRefused},
		{kerr.InvalidProducerEpoch.Code, verdictFenced},
		{kerr.ProducerFenced.Code, verdictFenced},
		{kerr.OutOfOrderSequenceNumber.Code, verdictLost},
		{kerr.UnknownProducerID.Code, verdictLost},
		{kerr.DuplicateSequenceNumber.Code, verdictLost},
		{kerr.UnknownTopicID.Code, verdictTopicGone},
		{kerr.NotEnoughReplicas.Code, verdictRetryCertain},
		{kerr.TopicAuthorizationFailed.Code, verdictRetryCertain},
		{kerr.NotEnoughReplicasAfterAppend.Code, verdictRetry},
		{kerr.RequestTimedOut.Code, verdictRetry},
		{kerr.NotLeaderForPartition.Code, verdictRetry},
		{kerr.UnknownTopicOrPartition.Code, verdictRetry},
		{kerr.KafkaStorageError.Code, verdictRetry},
		{kerr.UnknownServerError.Code, verdictRetry},
		{29999, verdictRetry}, // not in this client's list: may be stored
		{kerr.FencedLeaderEpoch.Code, verdictRetry},
		{kerr.OffsetOutOfRange.Code, verdictLost}, // makes no sense here: read the log
	} {
		if got, err := judge(c.code); got != c.want || (err == nil) != (c.code == 0) {
			t.Errorf("code %d: got verdict %d, error %v, want verdict %d", c.code, got, err, c.want)
		}
	}
}
