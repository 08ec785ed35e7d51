defmodule NetRunner.Command do
  @moduledoc """
  A command as a value: an executable, its arguments and its options. It is made once, and can be run any number of times by any
  function that takes a command.

      iex> sort = NetRunner.Command.new("sort", ["-r"], env: [{"LC_ALL", "C"}])
      iex> NetRunner.run(sort, input: "a\\nb\\n")
      {"b\\na\\n", 0}

  Wherever `[executable | args]` is accepted, a command is accepted too. The options of the call win over those of the command. The
  option `:args`, which is only for a command, is appended to its arguments:

      iex> echo = NetRunner.Command.new("echo", ["-n", "hello"], timeout: 5_000)
      iex> NetRunner.run(echo, args: ["world"], timeout: 1_000)
      {"hello world", 0}

  A function ignores the options of a command that it does not take. So the same command can be used with `NetRunner.stream!/2`, which
  takes `:exit_status`, and with `NetRunner.run/2`, which does not:

      iex> grep = NetRunner.Command.new("grep", ["x"], exit_status: :ignore)
      iex> NetRunner.stream!(grep, input: "a\\n") |> Enum.to_list()
      []
      iex> NetRunner.run(grep, input: "a\\n")
      {"", 1}

  A command can be inspected and logged without showing secrets: the values of `:env`, `:input` and the inputs of `:fds` are hidden.

      iex> inspect(NetRunner.Command.new("psql", [], env: [{"PGPASSWORD", "secret"}], cd: "/"))
      ~S(%NetRunner.Command{cmd: "psql", args: [], opts: [env: :hidden, cd: "/"]})

  ## Modules of commands

  `use NetRunner.Command` imports `defcommand/2` and `defcommand/3`, which define functions that return commands. Such a function can be
  called with a list, which it appends to the arguments:

      iex> defmodule Tools do
      ...>   use NetRunner.Command
      ...>
      ...>   defcommand :count, "wc", args: ["-l"], timeout: 5_000
      ...>   defcommand :upper, "tr", args: ["a-z", "A-Z"]
      ...> end
      iex> NetRunner.run(Tools.count(), input: "a\\nb\\n")
      {"2\\n", 0}
      iex> Tools.count(["-c"]).args
      ["-l", "-c"]
      iex> Tools.__commands__()
      [:count, :upper]
  """
  @moduledoc since: "0.1.0"

  alias NetRunner.Options

  # Of all functions that take a command.
  @groups [:command, :input, :run, :progress, :capture, :cmd, :stream, :raising, :process]

  @enforce_keys [:cmd]
  defstruct [:cmd, args: [], opts: []]

  @type t :: %__MODULE__{cmd: String.t(), args: [String.t()], opts: keyword()}

  @doc """
  Makes a command from an executable, arguments and options. The options can be those of any function that the command will be used
  with. An unknown option, or a value of the wrong type, raises `ArgumentError`.

      iex> NetRunner.Command.new("ls", ["-l"], cd: "/")
      %NetRunner.Command{cmd: "ls", args: ["-l"], opts: [cd: "/"]}
      iex> NetRunner.Command.new("ls", [], timeuot: 10)
      ** (ArgumentError) unknown option :timeuot; did you mean :timeout?
  """
  @spec new(String.t(), [String.t()], keyword()) :: t()
  def new(executable, args \\ [], options \\ []) do
    executable!(executable)
    _ = Options.validate!(options, @groups)
    %__MODULE__{cmd: executable, args: strings!(args), opts: options}
  end

  @doc """
  Returns the executable, the arguments and the options of a call of this command. Options of the call win, and its `:args` are
  appended. An option of the command that has no meaning beside one of the call, such as `:input` beside `stdin: :null`, is left out.

      iex> command = NetRunner.Command.new("rg", ["--no-heading"], timeout: 5_000, cd: "/tmp")
      iex> NetRunner.Command.to_cmd_args_opts(command, args: ["needle"], timeout: 100)
      {"rg", ["--no-heading", "needle"], [cd: "/tmp", timeout: 100]}
  """
  @spec to_cmd_args_opts(t(), keyword()) :: {String.t(), [String.t()], keyword()}
  def to_cmd_args_opts(command, options \\ []), do: command |> checked!() |> for_call(options)

  defp for_call(command, options) do
    options = Options.merge(command.opts, options)
    {args, options} = Keyword.pop(options, :args, [])
    {command.cmd, command.args ++ strings!(args), options}
  end

  @doc false
  # A command that may have been put together or changed by hand: what `new/3` would not make raises, and shows no secret. The
  # values of options are checked by the function that uses them.
  @spec checked!(t()) :: t()
  def checked!(%__MODULE__{cmd: executable, args: args, opts: options} = command) do
    executable!(executable)
    Options.keyword!(options)
    for {name, _} <- options, do: Options.Name.known!(name, @groups)
    %{command | args: strings!(args)}
  end

  # No function clause, whose error would show the options.
  def checked!(other) do
    raise ArgumentError, "this takes a NetRunner.Command, got: #{Options.Kind.of(other)}"
  end

  defp executable!(executable) do
    unless is_binary(executable) do
      raise ArgumentError,
            "the executable must be a string, got: #{Options.Kind.no_string(executable)}"
    end
  end

  @doc false
  # What a function makes of the command and the options that it is given: `[executable | args]` and the
  # options to validate.
  @spec unfold(t(), term(), [Options.group()]) :: {[String.t()], term()}
  def unfold(%__MODULE__{} = command, options, groups) do
    command = checked!(command)

    meant =
      command.opts |> Keyword.take(Options.Name.names(groups)) |> with_meaning(options, groups)

    {executable, args, options} = for_call(%{command | opts: meant}, options)
    {[executable | args], options}
  end

  # A capture reads stderr, unless it is told otherwise, and so no tail of it is kept.
  defp with_meaning(own, options, [_ | _] = groups) do
    consumed? = Enum.any?([own, options], &(Keyword.keyword?(&1) and &1[:stderr] != nil))
    if :capture in groups and not consumed?, do: Keyword.delete(own, :stderr_tail), else: own
  end

  @doc false
  # What a function of `defcommand/3` returns.
  @spec defined(String.t(), keyword(), [String.t()]) :: t()
  def defined(executable, options, extra_args) do
    Options.keyword!(options, :with_args)
    {args, options} = Keyword.pop(options, :args)
    executable |> new(args || [], options) |> append(extra_args)
  end

  @doc false
  @spec append(t(), [String.t()]) :: t()
  def append(%__MODULE__{} = command, args) do
    command = checked!(command)
    %{command | args: command.args ++ strings!(args)}
  end

  # Values that are computed are checked when they are.
  defp check_literals!(executable, options) do
    unless is_binary(executable) or not Macro.quoted_literal?(executable) do
      raise ArgumentError,
            "the executable must be a string, got: #{Macro.to_string(executable)}"
    end

    if Macro.quoted_literal?(options), do: Options.keyword!(literal(options), :with_args)

    if Keyword.keyword?(options) do
      {args, options} = options |> Macro.prewalk(&negative/1) |> Keyword.pop(:args)
      if args && Macro.quoted_literal?(args), do: strings!(literal(args))
      {literals, computed} = Enum.split_with(options, fn {_, v} -> Macro.quoted_literal?(v) end)

      # `nil` is as if the option were not given; its name has to be one all the same.
      named = for {name, _} <- computed, do: {name, nil}
      _ = Options.validate!(named ++ for({n, v} <- literals, do: {n, literal(v)}), @groups)
    end
  end

  # To the compiler, a number below 0 is a call.
  defp negative({:-, _, [number]}) when is_number(number), do: -number
  defp negative(other), do: other

  defp literal(quoted) do
    {value, _} = Code.eval_quoted(quoted)
    value
  end

  defp strings!(nil), do: []

  defp strings!(args) do
    cond do
      not is_list(args) or List.improper?(args) or charlist?(args) ->
        raise ArgumentError,
              "arguments must be a list of strings, got: #{Options.Kind.no_string(args)}"

      problem = Options.Kind.no_strings(args) ->
        raise ArgumentError, problem

      true ->
        args
    end
  end

  defp charlist?(list), do: list != [] and List.ascii_printable?(list)

  @doc "Imports `defcommand/2` and `defcommand/3`, and defines `__commands__/0`, which returns the names in their order."
  defmacro __using__(_) do
    quote do
      import NetRunner.Command, only: [defcommand: 2, defcommand: 3]
      Module.register_attribute(__MODULE__, :net_runner_commands, accumulate: true)
      @before_compile NetRunner.Command
    end
  end

  @doc false
  defmacro __before_compile__(_env) do
    quote do
      @doc false
      @spec __commands__() :: [atom()]
      def __commands__, do: unquote(Enum.reverse(commands(__CALLER__.module)))
    end
  end

  defp commands(module), do: Module.get_attribute(module, :net_runner_commands)

  @doc """
  Defines two functions: `name/0` returns a command with the executable, the arguments `:args` from `options`, and the other
  options; `name/1` also appends a list of arguments.

  The executable and the options are evaluated each time the function is called, so they can depend on the environment. The names
  of options, and literal values, are checked when the module is compiled. A `@doc` before `defcommand` documents the functions.

      iex> defmodule Search do
      ...>   use NetRunner.Command
      ...>   defcommand :rg, "rg", args: ["--no-heading"], timeout: 5_000
      ...> end
      iex> Search.rg(["needle"])
      %NetRunner.Command{cmd: "rg", args: ["--no-heading", "needle"], opts: [timeout: 5000]}
  """
  defmacro defcommand(name, executable, options \\ []) do
    unless is_atom(name) do
      raise ArgumentError,
            "defcommand needs an atom as the command's name, got: #{Macro.to_string(name)}"
    end

    check_literals!(executable, options)

    quote do
      @net_runner_commands unquote(name)

      @spec unquote(name)([String.t()]) :: NetRunner.Command.t()
      def unquote(name)(extra_args \\ []) do
        NetRunner.Command.defined(unquote(executable), unquote(options), extra_args)
      end
    end
  end
end

defimpl Inspect, for: NetRunner.Command do
  # What they hold may be secret.
  @hidden [:env, :input]

  # Characters of one argument, and of one option.
  @longest 100
  @most_args 20

  # On one line, made of any fields.
  def inspect(%{cmd: cmd, args: args, opts: opts}, _options) do
    "%NetRunner.Command{cmd: #{short(cmd)}, args: #{args(args)}, opts: #{options(opts)}}"
  end

  defp args(args) do
    if is_list(args) and not List.improper?(args) do
      {shown, others} = Enum.split(args, @most_args)
      more = if others == [], do: [], else: ["… (#{length(others)} more)"]
      "[#{Enum.join(Enum.map(shown, &short/1) ++ more, ", ")}]"
    else
      short(args)
    end
  end

  defp options(opts) do
    if Keyword.keyword?(opts),
      do:
        "[#{Enum.map_join(opts, ", ", fn {name, value} -> "#{name}: #{value(name, value)}" end)}]",
      else: ":hidden"
  end

  defp value(name, _value) when name in @hidden, do: ":hidden"

  defp value(:fds, fds) when is_map(fds),
    do: short(NetRunner.System.Descriptors.without_inputs(fds))

  defp value(:fds, _wrong), do: ":hidden"
  defp value(_name, value), do: short(value)

  defp short(term) do
    text = Kernel.inspect(term, width: :infinity)
    if String.length(text) > @longest, do: String.slice(text, 0, @longest) <> "…", else: text
  end
end
