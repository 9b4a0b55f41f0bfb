package codec

// Dates and times in JSON, by hand: package time takes ten times as long, and its parser takes
// more than RFC 3339 and drops digits that a unit cannot hold.

const (
	secondsPerDay = 24 * 3600
	nanosPerSec   = 1_000_000_000
)

// civil turns days since 1970 into a date of the proleptic Gregorian calendar.
func civil(days int64) (year, month, day int64) {
	const daysPer400Years, daysTo1970 = 146097, 719468 // from 0000-03-01
	days += daysTo1970
	era := floorDiv(days, daysPer400Years)
	dayOfEra := days - era*daysPer400Years
	yearOfEra := (dayOfEra - dayOfEra/1460 + dayOfEra/36524 - dayOfEra/146096) / 365
	dayOfYear := dayOfEra - (365*yearOfEra + yearOfEra/4 - yearOfEra/100) // from 1 March
	month = (5*dayOfYear + 2) / 153
	day = dayOfYear - (153*month+2)/5 + 1
	year = yearOfEra + era*400
	if month += 3; month > 12 {
		month -= 12
		year++
	}
	return year, month, day
}

// daysOf is the way back from a date to days since 1970.
func daysOf(year, month, day int64) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	era := floorDiv(year, 400)
	yearOfEra := year - era*400
	dayOfYear := (153*(month-3)+2)/5 + day - 1
	return era*146097 + yearOfEra*365 + yearOfEra/4 - yearOfEra/100 + dayOfYear - 719468
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func append2(dst []byte, v int64) []byte { return append(dst, byte('0'+v/10%10), byte('0'+v%10)) }

func appendDate(dst []byte, days int64) []byte {
	year, month, day := civil(days)
	dst = append2(append2(dst, year/100), year%100)
	dst = append2(append(dst, '-'), month)
	return append2(append(dst, '-'), day)
}

// appendClock writes nanoseconds of a day, without trailing zeros.
func appendClock(dst []byte, nanos int64) []byte {
	seconds, fraction := nanos/nanosPerSec, nanos%nanosPerSec
	dst = append2(dst, seconds/3600)
	dst = append2(append(dst, ':'), seconds/60%60)
	dst = append2(append(dst, ':'), seconds%60)
	if fraction == 0 {
		return dst
	}
	dst = append(dst, '.')
	for digit := int64(nanosPerSec / 10); fraction > 0; digit /= 10 {
		dst = append(dst, byte('0'+fraction/digit))
		fraction %= digit
	}
	return dst
}

func appendTimestamp(dst []byte, v, unit int64, isLocal bool) []byte {
	perDay := secondsPerDay * nanosPerSec / unit
	days := floorDiv(v, perDay)
	dst = appendDate(append(dst, '"'), days)
	dst = appendClock(append(dst, 'T'), (v-days*perDay)*unit)
	if !isLocal {
		dst = append(dst, 'Z')
	}
	return append(dst, '"')
}

// timeText reads dates and times from the front of a text. After ok is false it means nothing.
type timeText struct {
	text []byte
	ok   bool
}

// digits reads a number of exactly n digits.
func (t *timeText) digits(n int) int64 {
	if len(t.text) < n {
		t.ok = false
		return 0
	}
	v := int64(0)
	for _, c := range t.text[:n] {
		if c < '0' || c > '9' {
			t.ok = false
		}
		v = v*10 + int64(c-'0')
	}
	t.text = t.text[n:]
	return v
}

func (t *timeText) sign(c byte) {
	if len(t.text) == 0 || t.text[0] != c {
		t.ok = false
		return
	}
	t.text = t.text[1:]
}

func (t *timeText) date() (days int64) {
	year := t.digits(4)
	t.sign('-')
	month := t.digits(2)
	t.sign('-')
	day := t.digits(2)
	t.ok = t.ok && year >= 1 && month >= 1 && month <= 12 && day >= 1 && day <= daysIn(year, month)
	return daysOf(year, month, day)
}

func daysIn(year, month int64) int64 {
	switch {
	case month == 2 && (year%4 != 0 || year%100 == 0 && year%400 != 0):
		return 28
	case month == 2:
		return 29
	case month == 4 || month == 6 || month == 9 || month == 11:
		return 30
	}
	return 31
}

// clock reads a time of day. isExact says whether the fraction is a multiple of the unit.
func (t *timeText) clock(unit int64) (seconds, nanos int64, isExact bool) {
	hour := t.digits(2)
	t.sign(':')
	minute := t.digits(2)
	t.sign(':')
	second := t.digits(2)
	t.ok = t.ok && hour <= 23 && minute <= 59 && second <= 59
	isExact = true
	if len(t.text) > 0 && t.text[0] == '.' {
		t.text = t.text[1:]
		nanos, isExact = t.fraction(unit)
	}
	return hour*3600 + minute*60 + second, nanos, isExact
}

func (t *timeText) fraction(unit int64) (nanos int64, isExact bool) {
	n := 0
	isExact = true
	for digit := int64(nanosPerSec / 10); n < len(t.text) && t.text[n] >= '0' && t.text[n] <= '9'; n++ {
		nanos += int64(t.text[n]-'0') * digit
		isExact = isExact && (digit > 0 || t.text[n] == '0')
		digit /= 10
	}
	t.ok = t.ok && n > 0
	t.text = t.text[n:]
	return nanos, isExact && nanos%unit == 0
}

// zone reads Z or an offset and returns the seconds east of UTC.
func (t *timeText) zone() int64 {
	if len(t.text) == 0 {
		t.ok = false
		return 0
	}
	sign := t.text[0]
	t.text = t.text[1:]
	if sign == 'Z' {
		return 0
	}
	hours := t.digits(2)
	t.sign(':')
	minutes := t.digits(2)
	t.ok = t.ok && (sign == '+' || sign == '-') && hours <= 23 && minutes <= 59
	if sign == '-' {
		return -(hours*3600 + minutes*60)
	}
	return hours*3600 + minutes*60
}

func (t *timeText) ended() bool { return t.ok && len(t.text) == 0 }

// parseTime reads a date, a time of day or a timestamp. What is wrong with it, or "".
func (n *jsonNode) parseTime(text []byte) (v int64, wrong string) {
	t := timeText{text: text, ok: true}
	var days, seconds, nanos, east int64
	isExact := true
	if n.form != formTime {
		days = t.date()
	}
	if n.form == formTimestamp {
		t.sign('T')
	}
	if n.form != formDate {
		seconds, nanos, isExact = t.clock(n.unit)
	}
	if n.form == formTimestamp && !n.isLocal {
		east = t.zone()
	}
	if !t.ended() {
		return 0, "want " + n.want
	}
	if !isExact {
		return 0, "the time is finer than " + unitNames[n.unit] + ", and digits would be lost"
	}
	if n.form == formDate {
		return days, ""
	}
	v, fits := inUnits(days*secondsPerDay+seconds-east, nanos, n.unit)
	if !fits || v < n.low || v > n.high {
		return 0, "the time is out of range"
	}
	return v, ""
}

var unitNames = map[int64]string{1_000_000: "milliseconds", 1000: "microseconds", 1: "nanoseconds"}

// inUnits returns seconds and nanoseconds, of which the second are never negative, as one number.
func inUnits(seconds, nanos, unit int64) (int64, bool) {
	perSecond := nanosPerSec / unit
	if seconds < 0 { // toward zero, so that the least value does not overflow on the way
		seconds++
		nanos -= nanosPerSec
	}
	whole := seconds * perSecond
	v := whole + nanos/unit
	return v, whole/perSecond == seconds && (nanos >= 0) == (v >= whole)
}
