package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
)

// jsonWorld is a codec over one record t.R with one field f of a type.
type jsonWorld struct {
	*Codec
	reg *Registered
}

func newJSONWorld(t testing.TB, fieldType string) jsonWorld {
	t.Helper()
	return newJSONWorldOf(t, `{"name":"f","type":`+fieldType+`}`, Config{})
}

func newJSONWorldOf(t testing.TB, fields string, cfg Config) jsonWorld {
	t.Helper()
	reg := register(t, 1, "t.R", 1, `{"type":"record","namespace":"t","name":"R","fields":[`+fields+`]}`)
	return jsonWorld{Codec: New(NewStaticReader(reg), cfg), reg: reg}
}

// faults encodes a text that must be refused, and returns path and message of each fault.
func (w jsonWorld) faults(t *testing.T, text string) []JSONFault {
	t.Helper()
	before := []byte("before")
	out, err := w.EncodeJSON(before, w.reg, []byte(text))
	fault := (*JSONError)(nil)
	if !errors.As(err, &fault) || !errors.Is(err, ErrBadData) {
		t.Errorf("%s: got %v, want a *JSONError that wraps ErrBadData", clip(text), err)
		return nil
	}
	if string(out) != "before" {
		t.Errorf("%s: dst was changed to %q", clip(text), out)
	}
	return fault.Faults
}

// encode encodes a text that must be taken, and has the guard look at the body.
func (w jsonWorld) encode(t testing.TB, text string) Payload {
	t.Helper()
	body, err := w.EncodeJSON(nil, w.reg, []byte(text))
	if err != nil {
		t.Fatalf("EncodeJSON(%s): %v", clip(text), err)
	}
	p, err := w.InspectBody(t.Context(), "t.R", 1, body)
	if err != nil {
		t.Fatalf("EncodeJSON(%s): the guard refuses its body: %v", clip(text), err)
	}
	return p
}

func (w jsonWorld) text(t testing.TB, p Payload) string {
	t.Helper()
	text, err := w.AppendJSON(nil, p)
	if err != nil {
		t.Fatalf("AppendJSON: %v", err)
	}
	if !json.Valid(text) {
		t.Fatalf("AppendJSON wrote what is no JSON: %s", text)
	}
	return string(text)
}

const (
	tEnum      = `{"type":"enum","name":"E","symbols":["A","B"],"default":"A"}`
	tFixed3    = `{"type":"fixed","name":"F","size":3}`
	tDecimal   = `{"type":"bytes","logicalType":"decimal","precision":40,"scale":2}`
	tDecimalFx = `{"type":"fixed","name":"F","size":5,"logicalType":"decimal","precision":9,"scale":3}`
	tBig       = `{"type":"bytes","logicalType":"big-decimal"}`
	tUUID      = `{"type":"string","logicalType":"uuid"}`
	tUUIDFx    = `{"type":"fixed","name":"F","size":16,"logicalType":"uuid"}`
	tDate      = `{"type":"int","logicalType":"date"}`
	tDuration  = `{"type":"fixed","name":"F","size":12,"logicalType":"duration"}`
	tTree      = `["null",{"type":"record","name":"Tree","fields":[{"name":"v","type":"int"},{"name":"kids","type":{"type":"array","items":"Tree"},"default":[]}]}]`
	tWide      = `["null","int","string",{"type":"record","name":"I","fields":[{"name":"a","type":"int"}]},{"type":"array","items":"int"}]`
)

func tLong(logical string) string { return `{"type":"long","logicalType":"` + logical + `"}` }
func tMap(values string) string   { return `{"type":"map","values":` + values + `}` }
func tArray(items string) string  { return `{"type":"array","items":` + items + `}` }

// TestJSONOfEachType reads a value in JSON and writes it again. An empty want means the same text.
func TestJSONOfEachType(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ fieldType, in, want string }{
		{`"null"`, `null`, ``},
		{`"boolean"`, `true`, ``},
		{`"boolean"`, `false`, ``},
		{`"int"`, `-2147483648`, ``},
		{`"int"`, `-0`, `0`},
		{`"int"`, `1e3`, `1000`},
		{`"int"`, `1.50e1`, `15`},
		{`"int"`, `12000e-3`, `12`},
		{`"int"`, `0e999999999999999999999`, `0`},
		{`"int"`, `0.000e5`, `0`},
		{`"long"`, `9223372036854775807`, ``},
		{`"long"`, `-9223372036854775808`, ``},
		{`"long"`, `"-9223372036854775808"`, `-9223372036854775808`},
		{`"long"`, `"9007199254740993"`, `9007199254740993`},
		{`"long"`, `922337203685477580.7e1`, `9223372036854775807`},
		{`"long"`, `1000000000000000000`, ``},
		{`"float"`, `0.1`, ``},
		{`"float"`, `16777217`, `16777216`},
		{`"float"`, `1e-45`, ``},
		{`"double"`, `0.1`, ``},
		{`"double"`, `-0`, ``},
		{`"double"`, `5e-324`, ``},
		{`"double"`, `1.7976931348623157e308`, `1.7976931348623157e+308`},
		{`"double"`, `100000000000000000000`, ``},
		{`"double"`, `1e-7`, ``},
		{`"double"`, `1e-400`, `0`},
		{`"string"`, `""`, ``},
		{`"string"`, `"a\"\\\/\b\f\n\r\tz"`, `"a\"\\/\u0008\u000c\n\r\tz"`},
		{`"string"`, `"\u00e4 \ud83d\ude42 \u0000"`, `"ä 🙂 \u0000"`},
		{`"string"`, "\"\u2028 \x7f\"", ``},
		{tUUID, `"00112233-4455-6677-8899-aabbccddeeff"`, ``},
		{tUUID, `"00112233-4455-6677-8899-AABBCCDDEEFF"`, ``},
		{tUUIDFx, `"00112233-4455-6677-8899-AABBCCDDEEFF"`, `"00112233-4455-6677-8899-aabbccddeeff"`},
		{tEnum, `"B"`, ``},
		{`"bytes"`, `""`, ``},
		{`"bytes"`, `"AP8="`, ``},
		{`"bytes"`, `"\/\/\/\/"`, `"////"`},
		{tFixed3, `"AP+A"`, ``},
		{tDecimal, `"12.50"`, ``},
		{tDecimal, `"12"`, `"12.00"`},
		{tDecimal, `"-0.05"`, ``},
		{tDecimal, `"-0"`, `"0.00"`},
		{tDecimal, `"-1.28"`, ``},
		{tDecimal, `"99999999999999999999999999999999999999.99"`, ``},
		{tDecimal, `"-99999999999999999999999999999999999999.99"`, ``},
		{tDecimal, `"-184467440737095516.16"`, ``},
		{tDecimal, `"9999999999999999.99"`, ``},
		{tDecimalFx, `"-999999.999"`, ``},
		{tDecimalFx, `"0.001"`, ``},
		{tDecimalFx, `"7"`, `"7.000"`},
		{tBig, `"12.50"`, ``},
		{tBig, `"-0.000"`, `"0.000"`},
		{tBig, `"1.5e3"`, `"15e2"`},
		{tBig, `"15E-4"`, `"0.0015"`},
		{tDate, `"2026-01-31"`, ``},
		{tDate, `"0001-01-01"`, ``},
		{tDate, `"9999-12-31"`, ``},
		{tDate, `"2000-02-29"`, ``},
		{tLong("timestamp-millis"), `"2026-01-31T15:04:05.123Z"`, ``},
		{tLong("timestamp-millis"), `"2026-01-31T15:04:05.120000000000Z"`, `"2026-01-31T15:04:05.12Z"`},
		{tLong("timestamp-millis"), `"2026-01-31T15:04:05+02:30"`, `"2026-01-31T12:34:05Z"`},
		{tLong("timestamp-micros"), `"2026-01-31T15:04:05.000001Z"`, ``},
		{tLong("timestamp-micros"), `"0001-01-01T00:00:00Z"`, ``},
		{tLong("timestamp-micros"), `"9999-12-31T23:59:59.999999Z"`, ``},
		{tLong("timestamp-micros"), `"1969-12-31T23:59:59.999999Z"`, ``},
		{tLong("timestamp-micros"), `"1970-01-01T00:30:00-01:00"`, `"1970-01-01T01:30:00Z"`},
		{tLong("timestamp-nanos"), `"1677-09-21T00:12:43.145224192Z"`, ``},
		{tLong("timestamp-nanos"), `"2262-04-11T23:47:16.854775807Z"`, ``},
		{tLong("local-timestamp-millis"), `"2026-01-31T15:04:05.5"`, ``},
		{tLong("local-timestamp-micros"), `"2026-01-31T15:04:05.000001"`, ``},
		{tLong("local-timestamp-nanos"), `"1969-12-31T23:59:59.999999999"`, ``},
		{tLong("time-micros"), `"15:04:05.000001"`, ``},
		{tLong("time-micros"), `"23:59:59.999999"`, ``},
		{`{"type":"int","logicalType":"time-millis"}`, `"15:04:05.25"`, ``},
		{`{"type":"int","logicalType":"time-millis"}`, `"00:00:00"`, ``},
		{tDuration, `{"months":1,"days":0,"millis":4294967295}`, ``},
		{tDuration, `{ "millis" : 3e0 , "months" : 1 , "days" : 2 }`, `{"months":1,"days":2,"millis":3}`},
		{tArray(`"int"`), `[]`, ``},
		{tArray(`"int"`), `[1,-2,3]`, ``},
		{tMap(`"int"`), `{}`, ``},
		{tMap(`"int"`), `{"b":2,"a":1,"":0,"ä":3}`, `{"":0,"a":1,"b":2,"ä":3}`},
		{tMap(tMap(`"string"`)), `{"y":{"2":"b","1":"a"},"x":{}}`, `{"x":{},"y":{"1":"a","2":"b"}}`},
		{`["null","string"]`, `null`, ``},
		{`["null","string"]`, `"a"`, ``},
		{`["string","null"]`, `"null"`, ``},
		{`["null",` + tLong("timestamp-millis") + `]`, `"2026-01-31T15:04:05Z"`, ``},
		{tWide, `null`, ``},
		{tWide, `{"int":5}`, ``},
		{tWide, `{"string":"s"}`, ``},
		{tWide, `{"t.I":{"a":1}}`, ``},
		{tWide, `{"array":[1]}`, ``},
		{`["int","string"]`, `{"string":"s"}`, ``},
		{`["int"]`, `{"int":5}`, ``},
		{tTree, `{"v":1,"kids":[{"v":2,"kids":[]},{"v":3}]}`, `{"v":1,"kids":[{"v":2,"kids":[]},{"v":3,"kids":[]}]}`},
		{tTree, `{"kids":[{"kids":[],"v":2}],"v":1}`, `{"v":1,"kids":[{"v":2,"kids":[]}]}`},
	} {
		w := newJSONWorld(t, c.fieldType)
		want := c.want
		if want == "" {
			want = c.in
		}
		p := w.encode(t, "\t{ \"f\"\n:\r"+c.in+" } ")
		if got := w.text(t, p); got != `{"f":`+want+`}` {
			t.Errorf("%s of %s: got %s, want %s", c.in, c.fieldType, got, want)
		}
	}
}

// TestJSONRefusesEachType: one fault, at f, with a message that helps.
func TestJSONRefusesEachType(t *testing.T) {
	t.Parallel()
	micros, nanos, local := tLong("timestamp-micros"), tLong("timestamp-nanos"), tLong("local-timestamp-micros")
	for _, c := range []struct{ fieldType, in, want string }{
		{`"null"`, `0`, "want null, got a number"},
		{`"boolean"`, `"true"`, "want true or false, got a string"},
		{`"int"`, `2147483648`, "out of the range of -2147483648 to 2147483647"},
		{`"int"`, `1.5`, "number with a fraction"},
		{`"int"`, `1e-1`, "number with a fraction"},
		{`"int"`, `1e999999999999`, "out of the range"},
		{`"int"`, `1e-999999999999`, "number with a fraction"},
		{`"int"`, `"1"`, "want an integer, got a string"},
		{`"int"`, `[1,{"a":[]}]`, "want an integer, got an array"},
		{`"int"`, `null`, "want an integer, got null"},
		{`"long"`, `9223372036854775808`, "out of the range"},
		{`"long"`, `-9223372036854775809`, "out of the range"},
		{`"long"`, `18446744073709551616`, "out of the range"},
		{`"long"`, `123456789012345678901234567890.5`, "number with a fraction"},
		{`"long"`, `"1e3"`, "digits in a string"},
		{`"long"`, `"1.0"`, "digits in a string"},
		{`"long"`, `""`, "digits in a string"},
		{`"long"`, `" 1"`, "digits in a string"},
		{`"long"`, `"9223372036854775808"`, "out of the range"},
		{`"float"`, `1e39`, "out of the range of 32 bits"},
		{`"double"`, `-1e309`, "out of the range of 64 bits"},
		{`"double"`, `"NaN"`, "want a number, got a string"},
		{`"string"`, `1`, "want a string, got a number"},
		{`"string"`, "\"\xff\"", "not UTF-8"},
		{`"string"`, "\"\\n\xc3\x28\"", "not UTF-8"},
		{`"string"`, "\"\xed\xa0\x80\"", "not UTF-8"},
		{`"string"`, `"\ud83d"`, "half of a surrogate pair"},
		{`"string"`, `"\ude42\ud83d"`, "half of a surrogate pair"},
		{`"string"`, `"\ud83d\u0041"`, "half of a surrogate pair"},
		{tUUID, `"00112233-4455-6677-8899-aabbccddeef"`, "want a UUID"},
		{tUUIDFx, `"00112233-4455-6677-8899-aabbccddeefg"`, "want a UUID"},
		{tEnum, `"C"`, "want one of A, B"},
		{`"bytes"`, `"AP8"`, "not base64"},
		{`"bytes"`, `"AP9="`, "not base64"},
		{`"bytes"`, `"A-_="`, "not base64"},
		{`"bytes"`, `"AAAA\n\n\n\n"`, "not base64"},
		{`"bytes"`, `"===="`, "not base64"},
		{tFixed3, `"AP8="`, "base64 for 3 bytes, got 2"},
		{tDecimal, `12.5`, `want a decimal in a string, such as "12.50", got a number`},
		{tDecimal, `"12.500"`, "more than 2 digits after the point"},
		{tDecimal, `"1e2"`, "want a decimal"},
		{tDecimal, `"+1"`, "want a decimal"},
		{tDecimal, `".5"`, "want a decimal"},
		{tDecimal, `"5."`, "want a decimal"},
		{tDecimal, `"05"`, "want a decimal"},
		{tDecimal, `""`, "want a decimal"},
		{tDecimal, `"-"`, "want a decimal"},
		{tDecimal, `"100000000000000000000000000000000000000"`, "more than 40 digits in all"},
		{tDecimalFx, `"1000000"`, "more than 9 digits in all"},
		{tBig, `"1e1001"`, "scale is beyond 1000"},
		{tBig, `"1e-99999999999999999999"`, "scale is beyond 1000"},
		{tBig, `"1e"`, "want a decimal"},
		{tDate, `"2026-02-29"`, "want a date"},
		{tDate, `"2026-13-01"`, "want a date"},
		{tDate, `"0000-01-01"`, "want a date"},
		{tDate, `"10000-01-01"`, "want a date"},
		{tDate, `"2026-01-31T00:00:00Z"`, "want a date"},
		{tDate, `20484`, "want a date"},
		{micros, `"2026-01-31T15:04:05.0000001Z"`, "finer than microseconds"},
		{micros, `"2026-01-31T15:04:05.00000000000000000001Z"`, "finer than microseconds"},
		{micros, `"2026-01-31T24:00:00Z"`, "want an RFC 3339 time"},
		{micros, `"2026-01-31T23:59:60Z"`, "want an RFC 3339 time"},
		{micros, `"2026-01-31T15:04:05"`, "want an RFC 3339 time"},
		{micros, `"2026-01-31 15:04:05Z"`, "want an RFC 3339 time"},
		{micros, `"2026-01-31t15:04:05z"`, "want an RFC 3339 time"},
		{micros, `"2026-01-31T15:04:05.Z"`, "want an RFC 3339 time"},
		{micros, `"2026-01-31T15:04:05+24:00"`, "want an RFC 3339 time"},
		{micros, `"2026-01-31T15:04Z"`, "want an RFC 3339 time"},
		{micros, `"9999-12-31T23:59:59-00:01"`, "time is out of range"},
		{micros, `"0001-01-01T00:00:00+00:01"`, "time is out of range"},
		{micros, `1700000000000000`, "want an RFC 3339 time such as 2026-01-31T15:04:05.25Z, got a number"},
		{nanos, `"2262-04-11T23:47:16.854775808Z"`, "time is out of range"},
		{nanos, `"1677-09-21T00:12:43.145224191Z"`, "time is out of range"},
		{nanos, `"9999-12-31T23:59:59Z"`, "time is out of range"},
		{local, `"2026-01-31T15:04:05Z"`, "want a local time"},
		{tLong("time-micros"), `"24:00:00"`, "want a time of day"},
		{tLong("time-micros"), `"15:04"`, "want a time of day"},
		{tArray(`"int"`), `{}`, "want an array, got an object"},
		{tMap(`"int"`), `[]`, "want an object, got an array"},
		{`["null","string"]`, `1`, "want a string, got a number"},
		{`["null","string"]`, `{"string":"a"}`, "want a string, got an object"},
		{`["int","string"]`, `null`, "named int, string, got null"},
		{tWide, `5`, "want an object of one member, named array, int, string, t.I, or null, got a number"},
		{tWide, `{}`, "got an empty object"},
		{tWide, `{"I":{"a":1}}`, "got another"},
		{tWide, `{"int":5,"string":""}`, "got more than one"},
		{tTree, `7`, "want an object, got a number"},
		{tDuration, `"P1M"`, "want an object of months, days and millis, got a string"},
	} {
		w := newJSONWorld(t, c.fieldType)
		faults := w.faults(t, `{"f":`+c.in+`}`)
		if len(faults) != 1 || faults[0].Path != "f" || !strings.Contains(faults[0].Message, c.want) {
			t.Errorf("%s of %s: got %q, want one fault at f that says %q", c.in, c.fieldType, faults, c.want)
		}
	}
}

func TestJSONRefusesWhatIsNoJSON(t *testing.T) {
	t.Parallel()
	w := newJSONWorldOf(t, `{"name":"f","type":["null","int"],"default":null},{"name":"s","type":"string","default":""},
		{"name":"a","type":{"type":"array","items":"int"},"default":[]},{"name":"m","type":{"type":"map","values":"int"},"default":{}}`, Config{})
	for _, text := range []string{
		``, ` `, `{`, `{"f"`, `{"f":`, `{"f":1`, `{"f":1,`, `{"f":1,}`, `{,}`, `{"f" 1}`, `{"f":1 "s":""}`, `{f:1}`, `{'f':1}`, `{"f":1}}`, `{"f":1} x`, `{"f":1}` + "\x00",
		"\xef\xbb\xbf{}", `{"f":01}`, `{"f":-}`, `{"f":1.}`, `{"f":.5}`, `{"f":1e}`, `{"f":1e+}`, `{"f":+1}`, `{"f":0x10}`, `{"f":1_0}`, `{"f":NaN}`, `{"f":nul}`, `{"f":nulll}`, `{"f":Null}`,
		`{"s":"`, `{"s":"\`, `{"s":"\"`, `{"s":"\x"}`, `{"s":"\u12g4"}`, `{"s":"\u12"}`, "{\"s\":\"\n\"}", "{\"s\":\"\x00\"}", "{\"s\":\"\\n\x1f\"}", "{\"s\":\"\x1f", `{"a":[1,]}`, `{"a":[,1]}`, `{"a":[1 2]}`, `{"a":[1}`, `{"a":[`, `{"m":{"a":1,}}`, `{"m":{"a"}}`, `{"m":{a:1}}`,
		`{"x":[1,}`, `{"x":{"a":[}]}`, `{"x":[1 2]}`, `{"x":tru}`, `{"x":`, `{"x":{"a" 1}}`, `{"x":{1:1}}`, `[]]`, `// {}`, `{"f":1}/**/`,
	} {
		if json.Valid([]byte(text)) {
			t.Errorf("%q is JSON; it does not belong here", text)
		}
		if faults := w.faults(t, text); len(faults) == 0 {
			t.Errorf("%q: got no fault", text)
		}
	}
}

func TestJSONNamesEveryFault(t *testing.T) {
	t.Parallel()
	w := newJSONWorldOf(t, `{"name":"amount","type":"int"},{"name":"lines","type":{"type":"array","items":{"type":"record","name":"L","aliases":["M"],"fields":[
		{"name":"price","type":"double"},{"name":"sku","type":"string","aliases":["code"]},{"name":"span","type":["null",`+tDuration+`],"default":null}]}}},
		{"name":"tags","type":{"type":"map","values":"string"}},{"name":"either","type":["int","L"]},{"name":"status","type":`+tEnum+`}`, Config{})
	got := w.faults(t, `{"amount":"5", "lines":[{"price":1,"sku":"a"},{"price":1,"sku":"a"},{"price":"x","code":7,"span":{"months":-1,"weeks":2,"months":1}}],
		"tags":{"b":"","a b":1,"ok":"","b":"x"},"amount":6,"either":{"t.L":{"price":true,"sku":"s"}}, "a b":{"c":[1]}}`)
	want := []string{
		`amount: want an integer, got a string`,
		`lines[2].price: want a number, got a string`,
		`lines[2].code: there is no such field`,
		`lines[2].span.months: want an integer from 0 to 4294967295`,
		`lines[2].span.weeks: there is no such field`,
		`lines[2].span.months: the field is there twice`,
		`lines[2].span.days: the field is missing and has no default`,
		`lines[2].span.millis: the field is missing and has no default`,
		`lines[2].sku: the field is missing and has no default`,
		`tags["a b"]: want a string, got a number`,
		`tags.b: the key is there twice`,
		`amount: the field is there twice`,
		`either["t.L"].price: want a number, got a boolean`,
		`["a b"]: there is no such field`,
		`status: the field is missing and has no default`,
	}
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("fault %d: got none, want %s", i, want[i])
		case i >= len(want):
			t.Errorf("fault %d: got %s, want none", i, got[i])
		case got[i].String() != want[i]:
			t.Errorf("fault %d: got %s, want %s", i, got[i], want[i])
		}
	}
	if text := (&JSONError{Faults: got[:2]}).Error(); text != "bad data: amount: want an integer, got a string; lines[2].price: want a number, got a string" {
		t.Errorf("the error says %q", text)
	}
}

func TestJSONPlacesTheFaultOfANameAtItsHolder(t *testing.T) {
	t.Parallel()
	w := newJSONWorld(t, tMap(`"int"`))
	for text, want := range map[string]string{
		"{\"f\":{\"ok\":1,\"\xff\":2}}": "[f: the string is not UTF-8]",
		"{\"f\":{\"\\ud800\":1}}":       "[f: the string holds half of a surrogate pair]",
		"{\"f\":{},\"\xff\":1}":         `[the string is not UTF-8 ["\xff"]: there is no such field]`,
		"{\"f\":{\"a\\u0020b\":\"x\"}}": `[f["a b"]: want an integer, got a string]`,
		"{\"f\":{\"\":null}}":           `[f[""]: want an integer, got null]`,
	} {
		if got := fmt.Sprint(w.faults(t, text)); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

func TestJSONListsNoMoreThanItsFaults(t *testing.T) {
	t.Parallel()
	w := newJSONWorld(t, tArray(`"int"`))
	if got := len(w.faults(t, `{"f":[`+strings.Repeat(`"x",`, 1000)+`1]}`)); got != JSONFaultsMax {
		t.Errorf("got %d faults, want %d", got, JSONFaultsMax)
	}
	long := strings.Repeat("k", 10_000)
	for _, f := range newJSONWorld(t, tMap(`"int"`)).faults(t, `{"f":{"`+long+`":"`+long+`"}}`) {
		if size := len(f.String()); size > 200 {
			t.Errorf("a fault has %d bytes, want it clipped", size)
		}
	}
}

// TestJSONFillsInDefaults compares with the Avro library, which fills in what a map lacks.
func TestJSONFillsInDefaults(t *testing.T) {
	t.Parallel()
	fields := `{"name":"a","type":"int","default":-7},{"name":"b","type":"long","default":9007199254740993},{"name":"c","type":"float","default":0.1},{"name":"d","type":"double","default":-2},
		{"name":"e","type":"string","default":"ä\u0000"},{"name":"g","type":"bytes","default":"\u0000\u00ff"},{"name":"h","type":{"type":"fixed","name":"H","size":2},"default":"\u00ff\u0001"},
		{"name":"i","type":{"type":"enum","name":"I","symbols":["A","B"]},"default":"B"},{"name":"j","type":["null","int"],"default":null},{"name":"k","type":["int","null"],"default":3},
		{"name":"l","type":{"type":"array","items":["null","string"]},"default":[]},{"name":"m","type":{"type":"array","items":"int"},"default":[1,2,3]},
		{"name":"n","type":{"type":"map","values":"int"},"default":{"one":1}},{"name":"o","type":"boolean","default":true},{"name":"p","type":"null","default":null},
		{"name":"q","type":{"type":"record","name":"Q","fields":[{"name":"x","type":"int","default":1},{"name":"y","type":["string","null"]}]},"default":{"y":"deep"}},
		{"name":"r","type":` + tLong("timestamp-micros") + `,"default":5},{"name":"s","type":` + tDecimal + `,"default":"\u0001"},{"name":"u","type":["null","Q"],"default":null}`
	w := newJSONWorldOf(t, fields, Config{})
	got := w.encode(t, `{}`)
	want, err := encode(w.reg.Schema.avro, nil, map[string]any{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Body, want) {
		t.Errorf("defaults: got % x, want % x", got.Body, want)
	}
	const text = `{"a":-7,"b":9007199254740993,"c":0.1,"d":-2,"e":"ä\u0000","g":"AP8=","h":"/wE=","i":"B","j":null,"k":3,"l":[],"m":[1,2,3],"n":{"one":1},"o":true,"p":null,"q":{"x":1,"y":"deep"},"r":"1970-01-01T00:00:00.000005Z","s":"0.01","u":null}`
	if got := w.text(t, got); got != text {
		t.Errorf("got %s\nwant %s", got, text)
	}
	some := w.encode(t, `{"u":null,"a":1,"p":null,"m":[],"e":"x"}`)
	wantSome := strings.NewReplacer(`"a":-7`, `"a":1`, `"m":[1,2,3]`, `"m":[]`, `"e":"ä\u0000"`, `"e":"x"`).Replace(text)
	if got := w.text(t, some); got != wantSome {
		t.Errorf("got %s\nwant %s", got, wantSome)
	}
}

func TestJSONOrderOfTheTextDoesNotMatter(t *testing.T) {
	t.Parallel()
	c := New(NewStaticReader(register(t, 7, "order.Placed", 1, orderPlacedV1)), Config{})
	reg, err := c.reader.ByID(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	binding, err := c.Bind(t.Context(), placedDef())
	if err != nil {
		t.Fatal(err)
	}
	v := ordinary()
	v.Labels = map[string]string{"z": "1", "a": "2", "m": "3"}
	framed, err := binding.Append(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	members := []string{`"customer":"c-1027"`, `"total":129900`, `"paid":true`, `"at":"2023-11-14T22:13:20Z"`, `"note":"leave at the door"`, `"status":"open"`,
		`"lines":[{"weight":1.5,"sku":"sku-1","count":2},{"count":1,"weight":0.25,"sku":"sku-2"}]`, `"labels":{"z":"1","a":"2","m":"3"}`}
	for shift := range members {
		text := "{" + strings.Join(append(append([]string{}, members[shift:]...), members[:shift]...), ",") + "}"
		got, err := c.EncodeJSON([]byte("before"), reg, []byte(text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if want := "before" + string(framed[ConfluentHeaderBytes:]); string(got) != want {
			t.Errorf("%s: got % x, want what Binding.Append writes, % x", text, got, want)
		}
	}
}

func TestJSONHoldsTheLimits(t *testing.T) {
	t.Parallel()
	nest := func(n int) string { return strings.Repeat(`{"n":`, n) + `null` + strings.Repeat(`}`, n) }
	const chain = `{"name":"n","type":["null","R"],"default":null}`
	ints := func(n int) string { return `{"f":[` + strings.Repeat("1,", n-1) + `1]}` }
	const array = `{"name":"f","type":{"type":"array","items":"int"}}`
	for _, c := range []struct {
		name, fields string
		limits       Limits
		fits, beyond string
		want         string
	}{
		{"depth", chain, Limits{DepthMax: 6}, nest(3), nest(4), "deeper than 6 levels"},
		{"bytes", array, Limits{BytesMax: 12}, ints(10), ints(11), "at most 12"},
		{"values", array, Limits{ValuesMax: 12}, ints(10), ints(11), "more than 12 values"},
		{"text", array, Limits{BytesMax: 2}, `{"f":[]}` + strings.Repeat(" ", 24), `{"f":[]}` + strings.Repeat(" ", 25), "at most 32 are allowed"},
		{"bytes by defaults", `{"name":"f","type":{"type":"array","items":{"type":"record","name":"D","fields":[{"name":"s","type":"string","default":"123456789"}]}}}`,
			Limits{BytesMax: 32}, `{"f":[{},{},{}]}`, `{"f":[{},{},{},{}]}`, "at most 32 are allowed"},
		{"values by defaults", `{"name":"f","type":{"type":"array","items":{"type":"record","name":"D","fields":[{"name":"s","type":["null","int"],"default":null}]}}}`,
			Limits{ValuesMax: 13}, `{"f":[{},{},{}]}`, `{"f":[{},{},{},{}]}`, "larger than a body may be"},
	} {
		w := newJSONWorldOf(t, c.fields, Config{Limits: c.limits})
		w.encode(t, c.fits)
		faults := w.faults(t, c.beyond)
		if len(faults) == 0 || !strings.Contains(faults[len(faults)-1].Message, c.want) {
			t.Errorf("%s beyond the limit: got %v, want %q", c.name, faults, c.want)
		}
	}
}

// TestHostileJSONIsCheap: whatever the text, what it makes us allocate is bounded. It may not run
// beside others, since it reads the process's allocations.
func TestHostileJSONIsCheap(t *testing.T) {
	const mega = 1 << 20
	deep := func(open, shut string, n int) string { return strings.Repeat(open, n) + strings.Repeat(shut, n) }
	for _, c := range []struct {
		name, fieldType, value string
		refused                bool
		allocatedMax           uint64
	}{
		{"huge exponent of an int", `"int"`, "1e" + strings.Repeat("9", mega), true, 64 << 10},
		{"a million zeros and the exponent that takes them back", `"int"`, "1" + strings.Repeat("0", mega) + "e-" + fmt.Sprint(mega), false, 64 << 10},
		{"a million digits of a long", `"long"`, strings.Repeat("9", mega), true, 64 << 10},
		{"a million digits of a fraction", `"long"`, "0." + strings.Repeat("3", mega), true, 64 << 10},
		{"a million digits of a double", `"double"`, strings.Repeat("9", mega), true, 4 * mega},
		{"huge exponent of a decimal", tDecimal, `"1e999999999"`, true, 64 << 10},
		{"a million digits of a decimal", tDecimal, `"` + strings.Repeat("9", mega) + `"`, true, 64 << 10},
		{"a million digits of a big-decimal", tBig, `"1e` + strings.Repeat("9", mega) + `"`, true, 64 << 10},
		{"a million digits of a second", tLong("timestamp-micros"), `"2026-01-31T15:04:05.` + strings.Repeat("0", mega) + `Z"`, false, 64 << 10},
		{"deep arrays where an int is wanted", `"int"`, deep("[", "]", mega), true, 64 << 10},
		{"deep objects in an unknown field", `["null","int"]`, `null,"x":` + deep(`{"":`, "}", mega), true, 64 << 10},
		{"deep tree", tTree, strings.Repeat(`{"v":1,"kids":[`, mega/16) + "]", true, 64 << 10},
		{"a million items", tArray(`"int"`), "[" + strings.Repeat("1,", mega) + "1]", true, 4 * mega},
		{"a million nulls", tArray(`"null"`), "[" + strings.Repeat("null,", mega) + "null]", true, 4 * mega},
		{"99,000 keys, all the same", tMap(`"int"`), "{" + strings.Repeat(`"a":1,`, 99_000) + `"b":1}`, true, 32 * mega},
		{"99,000 keys in the wrong order", tMap(`"int"`), "{" + keysDown(99_000) + "}", false, 32 * mega},
		{"unknown fields", `"int"`, strings.Repeat(`1,"x":1`, mega), true, 256 << 10},
		{"one string of escapes", `"string"`, `"` + strings.Repeat(`\n`, mega-64) + `"`, false, 16 * mega},
		{"a string of 8 MB", `"string"`, `"` + strings.Repeat(`x`, 8*mega) + `"`, true, 32 * mega},
	} {
		w := newJSONWorld(t, c.fieldType)
		text := []byte(`{"f":` + c.value + `}`)
		w.reg.Schema.jsonPlan()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		body, err := w.EncodeJSON(nil, w.reg, text)
		runtime.ReadMemStats(&after)
		if refused := err != nil; refused != c.refused {
			t.Errorf("%s: got %v, want refused %v", c.name, err, c.refused)
		}
		if len(body) > w.config.Limits.BytesMax {
			t.Errorf("%s: got a body of %d bytes", c.name, len(body))
		}
		if allocated := after.TotalAlloc - before.TotalAlloc; allocated > c.allocatedMax {
			t.Errorf("%s: allocated %d bytes, want at most %d", c.name, allocated, c.allocatedMax)
		}
	}
}

func keysDown(n int) string {
	var b strings.Builder
	for i := n; i > 0; i-- {
		if i < n {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"%05d":1`, i)
	}
	return b.String()
}

// TestHostileSchemasForJSON: a schema whose defaults double with every level, or whose names are
// long, makes neither a plan nor a text without bounds.
func TestHostileSchemasForJSON(t *testing.T) {
	doubled := `{"type":"record","name":"D0","fields":[{"name":"z","type":"null","default":null}]}`
	for i := 1; i <= 14; i++ {
		doubled = fmt.Sprintf(`{"type":"record","name":"D%d","fields":[{"name":"a","type":%s,"default":{}},{"name":"b","type":"D%d","default":{}}]}`, i, doubled, i-1)
	}
	w := newJSONWorldOf(t, `{"name":"f","type":`+doubled+`,"default":{}}`, Config{})
	if faults := w.faults(t, `{}`); len(faults) == 0 {
		t.Error("a default of 2^15 values and more: got none")
	}
	long := newJSONWorldOf(t, `{"name":"f","type":{"type":"array","items":{"type":"record","name":"L","fields":[{"name":"`+strings.Repeat("n", 100_000)+`","type":"boolean"}]}}}`, Config{})
	p := Payload{Registered: long.reg, Body: join(varints(40_000), make([]byte, 40_000), varints(0))}
	before := make([]byte, 3)
	out, err := long.AppendJSON(before, p)
	if !errors.Is(err, ErrBadData) || !strings.Contains(err.Error(), "times the bytes") {
		t.Errorf("4 GB of names: got %v, want a refusal", err)
	}
	if len(out) != 3 {
		t.Errorf("dst was changed: %d bytes, want 3", len(out))
	}
}

func TestAppendJSONRefusesWhatHasNoNumber(t *testing.T) {
	t.Parallel()
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		w := newJSONWorld(t, `["null","double"]`)
		body, err := encode(w.reg.Schema.avro, nil, map[string]any{"f": f})
		if err != nil {
			t.Fatal(err)
		}
		p, err := w.InspectBody(t.Context(), "t.R", 1, body)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.AppendJSON(nil, p); !errors.Is(err, ErrBadData) || errors.Is(err, ErrHostile) || !strings.Contains(err.Error(), "field f: a number that is not finite") {
			t.Errorf("%v: got %v, want a fault of field f", f, err)
		}
	}
}

// TestAppendJSONTrustsNothingWithItsLife: a payload that no guard has seen is a fault, not a panic.
func TestAppendJSONTrustsNothingWithItsLife(t *testing.T) {
	t.Parallel()
	for name, s := range differentialSchemas(t) {
		reg := &Registered{ID: 1, Type: s.Name(), Version: 1, Schema: s}
		c, g := New(NewStaticReader(reg), Config{}), seeded(name)
		sample := appendSample(nil, s.root, 1, 4)
		for range 2000 {
			body := g.mutate(sample)
			text, err := c.AppendJSON(nil, Payload{Registered: reg, Body: body})
			switch {
			case err == nil && !json.Valid(text):
				t.Fatalf("%s, % x: no JSON: %s", name, body, text)
			case err != nil && !errors.Is(err, ErrBadData):
				t.Fatalf("%s, % x: got %v, want ErrBadData", name, body, err)
			case err != nil && s.Check(body, Limits{}) == nil && !strings.Contains(err.Error(), "not finite"):
				t.Fatalf("%s, % x: the guard takes it, AppendJSON says %v", name, body, err)
			}
		}
	}
	for _, row := range hostiles() {
		w := newJSONWorldOf(t, `{"name":"f","type":`+row.field+`}`, Config{})
		if text, err := w.AppendJSON(nil, Payload{Registered: w.reg, Body: row.body}); err == nil && !json.Valid(text) {
			t.Errorf("%s: got what is no JSON", row.name)
		}
	}
	if _, err := New(NewStaticReader(), Config{}).AppendJSON(nil, Payload{}); !errors.Is(err, ErrBinding) {
		t.Errorf("empty payload: got %v, want ErrBinding", err)
	}
	if _, err := New(NewStaticReader(), Config{}).EncodeJSON(nil, nil, nil); !errors.Is(err, ErrBinding) {
		t.Errorf("no schema: got %v, want ErrBinding", err)
	}
}

func TestJSONDoesNotAllocate(t *testing.T) {
	c := New(NewStaticReader(register(t, 7, "order.Placed", 1, orderPlacedV1)), Config{})
	reg, err := c.reader.ByID(t.Context(), 7)
	if err != nil {
		t.Fatal(err)
	}
	text := []byte(`{"labels":{"b":"x","a":"y"},"customer":"c\n","total":12,"paid":true,"status":"closed","at":"2026-01-31T15:04:05.25Z","lines":[{"count":1,"sku":"s","weight":2.5}]}`)
	buf := make([]byte, 0, 1024)
	body, err := c.EncodeJSON(nil, reg, text)
	if err != nil {
		t.Fatal(err)
	}
	// Without the pool, which the race detector empties at random.
	e, root := &jsonEncoder{}, reg.Schema.jsonPlan().root
	encodeAgain := func() {
		e.begin(buf, text, c.config.Limits)
		if e.document(root) {
			e.recheck(reg.Schema)
		}
	}
	if got := testing.AllocsPerRun(100, encodeAgain); got != 0 || len(e.faults) > 0 || !bytes.Equal(e.out, body) {
		t.Errorf("EncodeJSON: got %v allocations, faults %v and % x, want none and % x", got, e.faults, e.out, body)
	}
	p := Payload{Registered: reg, Body: body}
	if got := testing.AllocsPerRun(100, func() { _, err = c.AppendJSON(buf, p) }); got != 0 || err != nil {
		t.Errorf("AppendJSON: got %v allocations and %v, want none", got, err)
	}
}
