package interop

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/foldstream/foldstream/internal/testkit"
)

const (
	apicurioVersion  = "3.0.9"
	apicurioArtifact = "io.apicurio:apicurio-registry-app:" + apicurioVersion + ":tar.gz:all"
	apicurioPath     = "/apis/ccompat/v7" // where it speaks as Confluent's registry does
)

var apicurio = flag.Bool("apicurio", false, "run the clients against Apicurio Registry, too (fetches 100 MB once)")

// TestAnotherRegistry runs the clients where a team has a registry already: the services and the
// clients all use that one.
func TestAnotherRegistry(t *testing.T) {
	if !*apicurio {
		t.Skip("only with -apicurio, as in make interop")
	}
	w := newWorld(t, startApicurio(t)+apicurioPath)
	runClients(t, w)
}

func startApicurio(t *testing.T) string {
	t.Helper()
	program, mvn := require(t, "java", "openjdk-17-jdk-headless"), require(t, "mvn", "maven")
	dir := cached(t, "apicurio", []byte(apicurioArtifact), func(ctx context.Context, dir string) error {
		err := run(ctx, "", mvn, "-q", "-B", "dependency:copy", "-Dartifact="+apicurioArtifact, "-DoutputDirectory="+dir)
		if err != nil {
			return err
		}
		archive := filepath.Join(dir, "apicurio-registry-app-"+apicurioVersion+"-all.tar.gz")
		return errors.Join(unpack(archive, dir), os.Remove(archive))
	})
	addr := freeAddress(t)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	testkit.StartProcess(t, func() *exec.Cmd {
		cmd := exec.Command(program, "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
			"-Dquarkus.http.host="+host, "-Dquarkus.http.port="+port,
			"-jar", filepath.Join(dir, "apicurio-registry-app-"+apicurioVersion+"-runner.jar"))
		cmd.Dir = t.TempDir()
		return cmd
	})
	base := "http://" + addr
	testkit.Await(t, "Apicurio Registry answers", startMax, func(ctx context.Context) bool {
		answer, err := get(ctx, base+apicurioPath+"/subjects")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
	return base
}

// unpack writes the plain files of an archive below dir.
func unpack(archive, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for files := tar.NewReader(unzipped); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		if err := unpackFile(root, header.Name, files); err != nil {
			return fmt.Errorf("unpack %s: %w", header.Name, err)
		}
	}
}

func unpackFile(root *os.Root, name string, content io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}
