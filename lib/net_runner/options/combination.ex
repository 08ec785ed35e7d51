defmodule NetRunner.Options.Combination do
  @moduledoc false
  # Options that mean nothing beside others, or with what a function does.

  alias NetRunner.Options
  alias NetRunner.Sandbox.Policy
  alias NetRunner.System.{Cgroup, Descriptors}

  # They mean nothing where no output comes to the VM. A stream reads stdout, and with `:tagged` stderr.
  @of_a_stream [:lines, :max_chunk_size]
  @of_output [:idle_timeout, :on_output, :keep, :interleave] ++ @of_a_stream

  @doc """
  Raises for an option that means nothing beside the others that are given to a function with these groups. `captured?`: it captures
  both outputs.
  """
  @spec check!(keyword(), [Options.group()], captured? :: boolean()) :: :ok
  def check!(given, groups, captured?) do
    piped? = captured? and given[:pty] in [nil, false]

    if piped? and given[:stderr] == nil and given[:stderr_tail] != nil do
      raise ArgumentError,
            "the option :stderr_tail has no meaning here: a capture returns all of stderr"
    end

    given = if piped?, do: Keyword.put_new(given, :stderr, :pipe), else: given

    for {option, names, why} <- exclusions(given),
        name <- names,
        given[name] not in [nil, false, :infinity] do
      both = [option, name] |> Enum.sort() |> Enum.map_join(" and ", &inspect/1)
      raise ArgumentError, "the options #{both} exclude each other: #{why}"
    end

    # A capture reads both, as a stream does with `:tagged`.
    read = if :capture in groups or given[:tagged], do: [:stdout, :stderr], else: [:stdout]

    for option <- @of_output, given[option] not in [nil, false, :infinity] do
      unless Enum.any?(read, &to_vm?(given, &1)) do
        raise ArgumentError,
              "the option #{inspect(option)} has no meaning here: there is no output to read, as " <>
                if(read == [:stdout],
                  do: "stdout is not a pipe to the VM",
                  else: "neither stdout nor stderr is a pipe to the VM"
                )
      end
    end

    for stream <- [:stdout, :stderr], limited?(given[:max_output_size], stream) do
      unless to_vm?(given, stream) do
        raise ArgumentError,
              "the limit of #{inspect(stream)} in :max_output_size has no meaning here: NetRunner does not read that stream"
      end
    end

    # A `NetRunner.Command` is for any function.
    on_demand? = :process in groups or not Enum.any?([:run, :cmd], &(&1 in groups))

    if given[:stderr] == :pipe and given[:tagged] != true and not on_demand? do
      raise ArgumentError,
            "stderr: :pipe is read on demand, and nobody would read it here: use NetRunner.capture/2, " <>
              "a stream with tagged: true, or NetRunner.Process"
    end

    if given[:log_prefix] != nil and not logs?(given[:on_output]) do
      raise ArgumentError,
            "the option :log_prefix is for lines that are logged: it needs on_output: :log"
    end

    if given[:leftovers] == :leave and given[:sandbox] != nil and
         Policy.ends_all?(given[:sandbox]) do
      raise ArgumentError,
            "the option :sandbox with processes: :own excludes leftovers: :leave: the kernel ends everything that the command leaves running"
    end

    if :process not in groups and given[:fds] != nil and Descriptors.on_demand?(given[:fds]) do
      raise ArgumentError,
            ":input and :output of the option :fds are written and read by calls, which need a NetRunner.Process; " <>
              "this function takes {:input, iodata} and files"
    end

    :ok
  end

  # Whether it is read there, by who reads that stream. All of a terminal is stdout.
  defp to_vm?(given, stream) do
    if given[:pty] in [nil, false],
      do: Keyword.get(given, stream, :pipe) == :pipe,
      else: stream == :stdout
  end

  defp limited?(limits, stream),
    do: is_list(limits) and Keyword.get(limits, stream, :infinity) != :infinity

  defp logs?(on_output), do: on_output == :log or match?({:log, _}, on_output)

  # `{option, what means nothing beside it, why}`.
  defp exclusions(given) do
    tagged? = given[:tagged] == true
    stderr = Keyword.get(given, :stderr, if(tagged?, do: :pipe, else: :consume))

    [
      Keyword.get(given, :pty, false) != false &&
        {:pty, [:stdin, :stdout, :stderr, :stderr_tail],
         "the terminal is stdin, stdout and stderr"},
      Keyword.get(given, :stdin, :pipe) != :pipe &&
        {:stdin, [:input],
         "an :input is written into a pipe, but stdin is #{inspect(given[:stdin])}"},
      given[:cgroup] && Cgroup.joins?(given[:cgroup]) &&
        {:cgroup, [:cgroup_path],
         ":join is for a cgroup that exists, and :cgroup_path creates one"},
      given[:on_line] != nil && {:on_line, [:on_output], "only one of them can get the output"},
      stderr != :consume &&
        {if(given[:stderr], do: :stderr, else: :tagged), [:stderr_tail],
         "the end of stderr is kept only with stderr: :consume"},
      given[:keep] != nil &&
        {:keep, [:max_output_size],
         "with :keep the command runs to its end, and a part of each stream is dropped"},
      given[:keep] != nil &&
        {:keep, [:interleave],
         "with :keep each stream has a head and a tail of its own, which have no common order"},
      {given[:interleave], given[:stderr]} == {true, :consume} &&
        {:interleave, [:stderr], "with stderr: :consume only the end of stderr is kept"},
      given[:lines] != nil && {:lines, [:max_chunk_size], "lines are never cut"}
    ]
    |> Enum.filter(& &1)
  end

  @doc "Of options that others win over, those that mean something beside these."
  @spec without_meaningless(keyword(), stronger :: keyword()) :: keyword()
  def without_meaningless(weaker, stronger) do
    excluded = Enum.flat_map(exclusions(stronger), fn {_, names, _} -> names end)
    weaker = Keyword.drop(weaker, excluded)
    Keyword.drop(weaker, of_no_output(weaker, stronger))
  end

  # Those of the weaker for an output that the stronger send elsewhere.
  defp of_no_output(weaker, stronger) do
    both = Keyword.merge(weaker, stronger)

    cond do
      not Enum.any?([:stdout, :stderr, :pty], &Keyword.has_key?(stronger, &1)) -> []
      to_vm?(both, :stdout) -> []
      to_vm?(both, :stderr) -> if both[:tagged], do: [], else: @of_a_stream
      true -> @of_output
    end
  end
end
