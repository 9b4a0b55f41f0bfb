package registry

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/foldstream/foldstream/pkg/codec"
	"github.com/foldstream/foldstream/pkg/topics"
)

// ownFolder holds Foldstream's own envelopes; no category has its name.
const ownFolder = "foldstream"

var schemaFile = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_]*)\.v([1-9][0-9]{0,5})\.avsc$`)

// Submissions reads a project's schemas, <dir>/<category>/<Name>.v<N>.avsc, ordered by type and
// version. Type is <category>.<Name>, which the record's full name (or its fs.type) must equal.
// Kind is the property fs.kind, empty where it is not set: the category's mode decides then.
// Files that do not end in .avsc are passed over. All faults are joined, each names its file.
func Submissions(fsys fs.FS, dir string) ([]Submission, error) {
	var submissions []Submission
	var faults []error
	err := fs.WalkDir(fsys, dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() || path.Ext(name) != ".avsc" {
			return nil
		}
		s, err := readSubmission(fsys, dir, name)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
			return nil
		}
		submissions = append(submissions, s)
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("schemas folder %q is not there: make it, or name another in foldstream.yaml: %w", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read schemas folder %q: %w", dir, err)
	}
	slices.SortFunc(submissions, func(a, b Submission) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Version, b.Version))
	})
	faults = append(faults, gaps(submissions)...)
	return submissions, errors.Join(faults...)
}

func readSubmission(fsys fs.FS, dir, name string) (Submission, error) {
	relative := name
	if dir != "." {
		relative = strings.TrimPrefix(name, dir+"/")
	}
	category, file, nested := strings.Cut(relative, "/")
	match := schemaFile.FindStringSubmatch(file)
	if !nested || match == nil {
		return Submission{}, errors.New("want <category>/<Name>.v<N>.avsc below the schemas folder, such as order/Placed.v1.avsc: rename or move the file")
	}
	if category != ownFolder {
		if err := topics.ValidateName("category", category); err != nil {
			return Submission{}, err
		}
	}
	version, err := strconv.Atoi(match[2])
	if err != nil {
		return Submission{}, err
	}
	text, err := readText(fsys, name)
	if err != nil {
		return Submission{}, err
	}
	return submissionOf(category+"."+match[1], version, text)
}

func readText(fsys fs.FS, name string) (string, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return "", err
	}
	if info.Size() > codec.SchemaBytesMax {
		return "", fmt.Errorf("the file has %d bytes, a schema has at most %d", info.Size(), codec.SchemaBytesMax)
	}
	text, err := fs.ReadFile(fsys, name)
	return string(text), err
}

func submissionOf(want string, version int, text string) (Submission, error) {
	schema, err := codec.Parse(text)
	if err != nil {
		return Submission{}, err
	}
	if !schema.IsRecord() {
		return Submission{}, errors.New("the schema is no record: wrap it in one, only records are registered")
	}
	typ, kind := Describe(schema, "")
	if typ != want {
		return Submission{}, fmt.Errorf("the record's full name is %q, its path says %q: set namespace to the folder and name to the file's, or rename the file", clip(typ), want)
	}
	if kind != "" {
		if err := checkKind(kind); err != nil {
			return Submission{}, err
		}
	}
	return Submission{Type: typ, Version: version, Kind: kind, Text: text}, nil
}

// gaps finds types whose versions are not 1, 2, 3 …: the log holds what the missing one wrote.
func gaps(ordered []Submission) []error {
	var faults []error
	typ, last := "", 0
	for _, s := range ordered {
		if s.Type != typ {
			typ, last = s.Type, 0
		}
		if s.Version != last+1 {
			faults = append(faults, fmt.Errorf("%s has version %d, but no version %d: keep every version's file, and count from 1", s.Type, s.Version, last+1))
		}
		last = s.Version
	}
	return faults
}
