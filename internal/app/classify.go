package app

import (
	"errors"
	"strings"

	"github.com/foldstream/foldstream/internal/service"
	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/topics"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kerr"
)

// classify gives an error the exit code that its cause stands for, where it has none yet.
func classify(err error) error {
	var coded *service.ExitError
	if err == nil || errors.As(err, &coded) {
		return err
	}
	if code, known := exitCodeOf(err); known {
		return &service.ExitError{Code: code, Err: err}
	}
	return err
}

func exitCodeOf(err error) (int, bool) {
	var missing *topics.MissingError
	var refused *topics.PartitionsError
	var fromPostgres *pgconn.PgError
	switch {
	case errors.Is(err, service.ErrNoBrokers), errors.Is(err, service.ErrNoPostgres):
		return service.ExitUsage, true
	case errors.As(err, &missing), errors.Is(err, codec.ErrUnknownSchema):
		return service.ExitNotFound, true
	case errors.As(err, &refused), errors.Is(err, codec.ErrIncompatible):
		return service.ExitConflict, true
	case deniedByKafka(err), errors.As(err, &fromPostgres) && deniedByPostgres(fromPostgres.Code):
		return service.ExitDenied, true
	}
	return 0, false
}

func deniedByKafka(err error) bool {
	for _, denied := range []error{
		kerr.SaslAuthenticationFailed, kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed,
		kerr.ClusterAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed, kerr.SecurityDisabled,
	} {
		if errors.Is(err, denied) {
			return true
		}
	}
	return false
}

// deniedByPostgres takes the class "invalid authorization", and "insufficient privilege".
func deniedByPostgres(code string) bool {
	return strings.HasPrefix(code, "28") || code == "42501"
}
