// A module of its own, as a team's would be: it imports only pkg/ of Foldstream, which the
// go.work file of this repository stands for until there is a release to require.
module example.com/shop-example

go 1.26.0
