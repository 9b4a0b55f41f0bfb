package appender

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
)

// verdict is what one answer to a batch means (PROTOCOL W16, W17).
type verdict uint8

const (
	verdictAcked        verdict = iota
	verdictRetry                // may have been stored: the same bytes again
	verdictRetryCertain         // was not stored by this attempt: the same bytes again
	verdictRefused              // was not stored by this attempt, and never will be
	verdictFenced               // a higher epoch has written
	verdictLost                 // the broker's state of this producer is not ours
	verdictTopicGone            // no topic has this id (any more, or yet)
)

// judge classifies a partition's error code. A code that is not listed may stand for a stored
// batch: it is retried where Kafka calls it retriable, else the writer is lost and the caller
// reads the log.
func judge(code int16) (verdict, error) {
	err := kerr.TypedErrorForCode(code)
	if err == nil {
		return verdictAcked, nil
	}
	switch err {
	case kerr.InvalidProducerEpoch, kerr.ProducerFenced:
		return verdictFenced, err
	case kerr.OutOfOrderSequenceNumber, kerr.UnknownProducerID, kerr.DuplicateSequenceNumber,
		kerr.InvalidProducerIDMapping, kerr.InvalidTxnState:
		return verdictLost, err
	case kerr.UnknownTopicID, kerr.InconsistentTopicID:
		return verdictTopicGone, err
	case kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidTimestamp, kerr.InvalidRecord,
		kerr.CorruptMessage, kerr.PolicyViolation, kerr.InvalidTopicException, kerr.InvalidRequest,
		kerr.UnsupportedVersion, kerr.UnsupportedForMessageFormat, kerr.UnsupportedCompressionType,
		kerr.InvalidRequiredAcks:
		return verdictRefused, err
	case kerr.NotEnoughReplicas, kerr.ThrottlingQuotaExceeded,
		kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed:
		// Checked before the append. Missing rights are an operator's to repair: failing the
		// commands for them would lose what a grant sets right.
		return verdictRetryCertain, err
	case kerr.UnknownServerError:
		return verdictRetry, err
	}
	if kerr.IsRetriable(err) {
		return verdictRetry, err
	}
	return verdictLost, err
}

// isAuthorization says whether an error is a missing right.
func isAuthorization(err error) bool {
	return errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed) ||
		errors.Is(err, kerr.TransactionalIDAuthorizationFailed) || errors.Is(err, kerr.SaslAuthenticationFailed)
}

// isKafkaError says whether an error is a broker's answer, not the lack of one.
func isKafkaError(err error) bool {
	var answer *kerr.Error
	return errors.As(err, &answer)
}

// String names a partition in messages.
func (p Partition) String() string { return fmt.Sprintf("%s[%d]", p.Topic, p.Partition) }
