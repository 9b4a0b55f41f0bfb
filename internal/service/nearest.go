package service

// didYouMean returns `; the nearest known one is X`, or "" where nothing is near.
func didYouMean(name string, known []string) string {
	if near := Nearest(name, known); near != "" {
		return "; the nearest known one is " + near
	}
	return ""
}

// Nearest returns the known word with the smallest edit distance to word, or "" when none is
// nearer than half of word's length. Of several the first wins.
func Nearest(word string, known []string) string {
	best, nearest := len(word)/2+1, ""
	for _, k := range known {
		if d := editDistance(word, k); d < best {
			best, nearest = d, k
		}
	}
	return nearest
}

// editDistance counts the single-byte insertions, deletions and substitutions between a and b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substituted := diagonal
			if a[i] != b[j] {
				substituted++
			}
			diagonal = row[j+1]
			row[j+1] = min(substituted, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
