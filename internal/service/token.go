package service

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// Tokens are the bearer tokens of http.token_file: one on each line, any of which lets a request
// pass, so that a token can be replaced without a gap. The file is read again when it changes.
// Safe for concurrent use.
type Tokens struct {
	digests *reloaded[[][sha256.Size]byte]
}

// tokensMax bounds the lines of the file.
const tokensMax = 64

// NewTokens reads the file.
func NewTokens(path string, logger *slog.Logger) (*Tokens, error) {
	digests, err := newReloaded(func() ([][sha256.Size]byte, error) { return readTokens(path) }, logger, time.Now, path)
	if err != nil {
		return nil, fmt.Errorf("http.token_file: %w", err)
	}
	return &Tokens{digests}, nil
}

func readTokens(path string) ([][sha256.Size]byte, error) {
	text, err := readSecretFile(path)
	if err != nil {
		return nil, err
	}
	var digests [][sha256.Size]byte
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			digests = append(digests, sha256.Sum256([]byte(line)))
		}
	}
	if len(digests) == 0 || len(digests) > tokensMax {
		return nil, fmt.Errorf("read secret file %s: it has %d tokens, want 1 to %d, one on each line", path, len(digests), tokensMax)
	}
	return digests, nil
}

// Allow says whether a request carries one of the tokens. How long it takes tells nothing of them.
func (t *Tokens) Allow(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	digest := sha256.Sum256([]byte(token))
	found := 0
	for _, d := range t.digests.get() {
		found |= subtle.ConstantTimeCompare(d[:], digest[:])
	}
	return found == 1 && strings.EqualFold(scheme, "Bearer")
}

// Guard lets only requests with a token pass; others are answered 401.
func (t *Tokens) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if t.Allow(r) {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", "Bearer")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = fmt.Fprintln(w, `{"error_code":401,"message":"a token is needed: send Authorization: Bearer <token>"}`)
	})
}
