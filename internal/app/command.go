package app

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/foldstream/foldstream/internal/service"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Names of the environment variables that stand for the global flags of the same name.
const (
	envProject   = service.EnvPrefix + "PROJECT"
	envNamespace = service.EnvPrefix + "NAMESPACE"
	envConfig    = service.EnvPrefix + "CONFIG"
	envDataDir   = service.EnvPrefix + "DATA_DIR"
)

// Globals are the flags that every command has.
type Globals struct {
	ProjectDir  string
	Namespace   string
	ConfigFile  string
	DataDir     string
	PrintConfig bool
	Format      Format

	program Program
	flags   map[string]*string // by configuration key
}

// flagOfKey lists the flags that set a configuration key.
var flagOfKey = []struct{ key, flag, usage string }{
	{"kafka.brokers", "brokers", "seed brokers, host:port, separated by commas"},
	{"postgres.dsn", "dsn", "Postgres, as a URL or key=value text, without a password"},
	{"http.addr", "http-addr", "where the API, health and metrics are served, host:port"},
	{"log.level", "log-level", "debug, info, warn or error"},
	{"log.format", "log-format", "auto, text or json"},
	{"shutdown_timeout", "shutdown-timeout", "how long to drain after the first signal, such as 25s"},
}

// NewCommand returns the program's root command with the services and tools as subcommands. The
// Globals are those of the returned command, for subcommands that a caller adds.
func NewCommand(program Program) (*cobra.Command, *Globals) {
	program = program.withDefaults()
	root := &cobra.Command{
		Use:   program.Name,
		Short: "Event sourcing, CQRS and sagas on Kafka and Postgres",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	g := prepareRoot(root, program)
	for _, s := range services {
		root.AddCommand(serviceCommand(g, s))
	}
	root.AddCommand(topicsCommand(g), schemaCommand(g), viewCommand(g), versionCommand(g))
	return root, g
}

// NewServiceCommand returns a root command that is one service, for the binaries of one service.
func NewServiceCommand(program Program, name string) *cobra.Command {
	program = program.withDefaults()
	for _, s := range services {
		if s.name == name {
			root := &cobra.Command{Use: program.Name, Short: s.short, Args: cobra.NoArgs}
			root.RunE = serviceCommand(prepareRoot(root, program), s).RunE
			return root
		}
	}
	panic("app: no service is named " + name)
}

// prepareRoot gives a root command the global flags and our way with errors.
func prepareRoot(root *cobra.Command, program Program) *Globals {
	g := &Globals{program: program, Format: FormatTable, flags: map[string]*string{}}
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.HiddenDefaultCmd = true
	root.Version = service.Version()
	f := root.PersistentFlags()
	f.StringVar(&g.ProjectDir, "project", os.Getenv(envProject), "folder of the project; default: the one built in")
	f.StringVar(&g.Namespace, "namespace", os.Getenv(envNamespace), "instead of the project's")
	f.StringVar(&g.ConfigFile, "config", os.Getenv(envConfig), "YAML file of the configuration")
	f.StringVar(&g.DataDir, "data-dir", os.Getenv(envDataDir), "data folder of a local stack to join")
	f.BoolVar(&g.PrintConfig, "print-config", false, "print the configuration, secrets redacted, and end")
	f.VarP(&g.Format, "output", "o", "form of the data on stdout")
	for _, c := range flagOfKey {
		g.flags[c.key] = f.String(c.flag, "", c.usage)
	}
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		markStarted(cmd.Context())
		return nil
	}
	return g
}

// Configuration loads the configuration by flag, local stack, environment and file.
func (g *Globals) Configuration(cmd *cobra.Command) (service.Config, error) {
	if g.DataDir == "" {
		return g.load(cmd, nil, nil)
	}
	endpoints, err := ReadEndpoints(g.DataDir)
	if err != nil {
		return service.Config{}, err
	}
	return g.load(cmd, endpoints.configuration(), localDefaults)
}

// LocalConfiguration loads the configuration of a command that starts a stack of its own.
func (g *Globals) LocalConfiguration(cmd *cobra.Command) (service.Config, error) {
	return g.load(cmd, nil, localDefaults)
}

// localDefaults are those of programs that share one machine: they would meet at a fixed port.
var localDefaults = map[string]any{"http.addr": "127.0.0.1:0"}

func (g *Globals) load(cmd *cobra.Command, stack, defaults map[string]any) (service.Config, error) {
	cfg, err := service.Load(service.Sources{
		File: g.ConfigFile, Defaults: defaults, Stack: stack, Flags: g.given(cmd),
		Elsewhere: []string{envProject, envNamespace, envConfig, envDataDir},
	})
	if err != nil {
		return cfg, service.Exitf(service.ExitUsage, "%w", err)
	}
	return cfg, nil
}

// given returns the flags that stand on the command line, by configuration key.
func (g *Globals) given(cmd *cobra.Command) map[string]any {
	values := map[string]any{}
	for _, c := range flagOfKey {
		if cmd.Flags().Changed(c.flag) {
			values[c.key] = *g.flags[c.key]
		}
	}
	return values
}

// Environment makes the command's environment.
func (g *Globals) Environment(cmd *cobra.Command) (*Environment, error) {
	cfg, err := g.Configuration(cmd)
	if err != nil {
		return nil, err
	}
	return g.EnvironmentOf(cmd, cfg)
}

// EnvironmentOf makes the command's environment on a configuration that is loaded.
func (g *Globals) EnvironmentOf(cmd *cobra.Command, cfg service.Config) (*Environment, error) {
	return NewEnvironment(g.program, Settings{
		ProjectDir: g.ProjectDir, Namespace: g.Namespace, Config: cfg, Logs: cmd.ErrOrStderr(),
	})
}

func (g *Globals) confirmation(cmd *cobra.Command, execute, yes bool) confirmation {
	in, isFile := cmd.InOrStdin().(*os.File)
	return confirmation{
		execute: execute, yes: yes, in: cmd.InOrStdin(), out: cmd.ErrOrStderr(),
		terminal: isFile && term.IsTerminal(int(in.Fd())),
	}
}

// Execute runs a root command with the process's arguments and signals and returns its exit code.
func Execute(root *cobra.Command) int {
	ctx, hurry, stop := service.Signals(context.Background())
	defer stop()
	return ExecuteContext(ctx, hurry, root, os.Args[1:], os.Stdout, os.Stderr)
}

// ExecuteContext runs a root command and returns its exit code. hurry cuts the drain of a service
// short; nil means never.
func ExecuteContext(ctx context.Context, hurry <-chan struct{}, root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	run := &execution{hurry: hurry}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return err })
	err := root.ExecuteContext(context.WithValue(ctx, executionKey{}, run))
	if err != nil && !run.started {
		// Whatever fails before a command starts is how it was called.
		err = service.Exitf(service.ExitUsage, "%w (see %s --help)", err, root.Name())
	}
	return service.Report(stderr, root.Name(), classify(err))
}

// execution is what one call of a root command carries along.
type execution struct {
	started bool
	hurry   <-chan struct{}
}

type executionKey struct{}

func markStarted(ctx context.Context) {
	if run, ok := ctx.Value(executionKey{}).(*execution); ok {
		run.started = true
	}
}

// Hurry returns the channel that is closed at the second signal, or nil.
func Hurry(ctx context.Context) <-chan struct{} {
	if run, ok := ctx.Value(executionKey{}).(*execution); ok {
		return run.hurry
	}
	return nil
}

// toolTimeout bounds a command that asks a broker or a registry something and ends.
const toolTimeout = time.Minute

// tool makes a command's Run bounded.
func tool(run func(ctx context.Context, cmd *cobra.Command) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := context.WithTimeout(cmd.Context(), toolTimeout)
		defer cancel()
		return run(ctx, cmd)
	}
}

// group returns a command that only holds others.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(children...)
	return cmd
}

func versionCommand(g *Globals) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			value := map[string]string{"name": g.program.Name, "version": service.Version()}
			return Print(cmd.OutOrStdout(), g.Format, value, Table{
				Columns: []string{"name", "version"}, Rows: [][]string{{g.program.Name, service.Version()}},
			})
		},
	}
}

// hint names a command of this program in a remedy.
func (p Program) hint(command string, args ...any) string {
	return fmt.Sprintf("`%s %s`", strings.TrimSpace(p.Name), fmt.Sprintf(command, args...))
}
