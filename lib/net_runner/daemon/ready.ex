defmodule NetRunner.Daemon.Ready do
  @moduledoc false
  # How a daemon finds out that its command is ready, and waits for that: in the daemon's own process, which
  # is in its `init/1` then.
  #
  # A function or an address is tried by a process of its own (the probe), so that a try that hangs can be
  # given up; output is watched by the process that reads it. Both send `{ref, :ready}`.

  alias NetRunner.Daemon.Address
  alias NetRunner.Process, as: Command
  alias NetRunner.Process.Context

  # Nothing tells when an address is listened at, or when a function would return something else.
  @pause 50

  @enforce_keys [:ref, :probe, :timer, :timeout, :last_try]
  defstruct @enforce_keys

  @type spec ::
          nil
          # of no argument, or of the command's `NetRunner.Process`
          | fun()
          | {:output, Regex.t()}
          | Address.t()
  @type t :: %__MODULE__{}

  @doc """
  Before the command is started: whether another program listens where this one is expected to. It would be
  mistaken for the command.
  """
  @spec vacant(spec()) :: :ok | {:error, {:address_in_use, String.t()}}
  def vacant({:tcp, _, _} = address), do: vacant_address(address)
  def vacant({:unix, _} = address), do: vacant_address(address)
  def vacant(_spec), do: :ok

  defp vacant_address(address) do
    case Address.connect(address) do
      {:silent, _} ->
        :ok

      {:answers, where} ->
        {:error,
         {:address_in_use,
          "the command was not started: another program listens at #{where} already, " <>
            "which would be mistaken for it"}}
    end
  end

  @doc "Begins to find out. Output is watched by who reads it; see `watch/2`."
  @spec start(spec(), pid(), timeout()) :: t()
  def start(spec, process, timeout) do
    ref = make_ref()
    if spec == nil, do: send(self(), {ref, :ready})

    %__MODULE__{
      ref: ref,
      probe: start_probe(spec, process, ref),
      timer: if(timeout != :infinity, do: Process.send_after(self(), {ref, :expired}, timeout)),
      timeout: timeout,
      last_try: last_try(spec)
    }
  end

  defp last_try({:output, regex}), do: "its output did not match #{inspect(regex)}"
  defp last_try({_tcp, _, _}), do: "the first connection was neither made nor refused"
  defp last_try({_unix, _}), do: "the first connection was neither made nor refused"
  defp last_try(_function), do: "the function given as :ready did not return"

  @doc "The `:watch` of `NetRunner.Daemon.Output.start_link/2`."
  @spec watch(spec(), t()) :: nil | {Regex.t(), term()}
  def watch({:output, regex}, %__MODULE__{ref: ref}), do: {regex, {ref, :ready}}
  def watch(_spec, _ready), do: nil

  @doc """
  What comes next: the command is ready, or the time is over, or a linked process ends, of which the `EXIT`
  message is given. In the last case it can be called again, with the value that is given.
  """
  @spec await(t()) :: :ready | {:error, {:not_ready, String.t()}} | {{:EXIT, pid(), term()}, t()}
  def await(%__MODULE__{ref: ref, probe: probe} = ready) do
    receive do
      {^ref, :ready} -> :ready
      {^ref, {:not_yet, last_try}} -> await(%{ready | last_try: last_try})
      {^ref, :expired} -> not_ready("within #{ready.timeout} ms: #{ready.last_try}")
      {:EXIT, ^probe, reason} -> not_ready("because of its :ready function: #{inspect(reason)}")
      {:EXIT, _pid, _reason} = exit -> {exit, ready}
    end
  end

  defp not_ready(why), do: {:error, {:not_ready, "it did not become ready #{why}"}}

  @doc "Ends what `start/3` began, and leaves no message of it."
  @spec stop(t()) :: :ok
  def stop(%__MODULE__{ref: ref, probe: probe, timer: timer}) do
    if timer, do: Process.cancel_timer(timer)

    if probe do
      monitor = Process.monitor(probe)
      Process.unlink(probe)
      Process.exit(probe, :kill)
      # It sends nothing after that.
      receive do: ({:DOWN, ^monitor, :process, _, _} -> :ok)
    end

    flush(ref, probe)
  end

  defp flush(ref, probe) do
    receive do
      {^ref, _} -> flush(ref, probe)
      {:EXIT, ^probe, _} -> flush(ref, probe)
    after
      0 -> :ok
    end
  end

  # --- the probe ----------------------------------------------------------------------------------

  defp start_probe(nil, _process, _ref), do: nil
  defp start_probe({:output, _}, _process, _ref), do: nil

  defp start_probe(function, _process, ref) when is_function(function, 0) do
    probe(ref, fn -> call(function, []) end)
  end

  defp start_probe(function, process, ref) when is_function(function, 1) do
    probe(ref, fn -> call(function, [process]) end)
  end

  defp start_probe(address, process, ref), do: probe(ref, fn -> connect(address, process) end)

  defp probe(ref, try) do
    daemon = self()
    context = Context.capture()

    spawn_link(fn ->
      Context.adopt(context)
      probe(daemon, ref, try)
    end)
  end

  defp probe(daemon, ref, try) do
    case try.() do
      :ready ->
        send(daemon, {ref, :ready})

      {:not_yet, _} = not_yet ->
        send(daemon, {ref, not_yet})

        receive do
          # The function has made this process trap exits.
          {:EXIT, ^daemon, reason} -> exit(reason)
        after
          @pause -> probe(daemon, ref, try)
        end
    end
  end

  defp call(function, arguments) do
    case apply(function, arguments) do
      ready when ready in [true, :ok] -> :ready
      {:ok, _} -> :ready
      other -> {:not_yet, "the function given as :ready returned #{inspect(other)}"}
    end
  catch
    kind, reason ->
      failure = Exception.format(kind, reason, __STACKTRACE__)
      {:not_yet, "the function given as :ready failed: #{failure}"}
  end

  defp connect(address, process) do
    case Address.connect(address) do
      {:silent, tried} ->
        {:not_yet, tried}

      # The address may have been taken meanwhile, which is why the command has exited.
      {:answers, where} ->
        if Command.alive?(process),
          do: :ready,
          else: {:not_yet, "another program listens at #{where}"}
    end
  end
end
