package decidertest

import "strings"

// diffLinesMax bounds the table of the comparison; longer texts are shown whole.
const diffLinesMax = 2000

// diff shows two texts line by line: "-" stands only in got, "+" only in want.
func diff(got, want string) string {
	a, b := lines(got), lines(want)
	var out strings.Builder
	out.WriteString("(- got, + want)\n")
	if len(a) > diffLinesMax || len(b) > diffLinesMax {
		write(&out, "- ", a)
		write(&out, "+ ", b)
		return out.String()
	}
	common := commonTails(a, b)
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		switch {
		case a[i] == b[j]:
			write(&out, "  ", a[i:i+1])
			i, j = i+1, j+1
		case common[i+1][j] >= common[i][j+1]:
			write(&out, "- ", a[i:i+1])
			i++
		default:
			write(&out, "+ ", b[j:j+1])
			j++
		}
	}
	write(&out, "- ", a[i:])
	write(&out, "+ ", b[j:])
	return out.String()
}

// commonTails returns the length of the longest common subsequence of a[i:] and b[j:] for each
// i and j.
func commonTails(a, b []string) [][]int {
	table := make([][]int, len(a)+1)
	for i := range table {
		table[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				table[i][j] = table[i+1][j+1] + 1
			} else {
				table[i][j] = max(table[i+1][j], table[i][j+1])
			}
		}
	}
	return table
}

func lines(text string) []string { return strings.Split(strings.TrimSuffix(text, "\n"), "\n") }

func write(out *strings.Builder, mark string, lines []string) {
	for _, line := range lines {
		out.WriteString(mark + line + "\n")
	}
}
