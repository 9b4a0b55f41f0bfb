// A module of its own, as a team's would be: it imports only pkg/ of Foldstream, which the
// go.work file above stands for until there is a release to require.
module example.com/shop

go 1.26.0

require (
	github.com/jackc/pgx/v5 v5.12.0
	github.com/twmb/franz-go v1.22.2
)
