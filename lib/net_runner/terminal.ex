defmodule NetRunner.Terminal do
  @moduledoc false
  # Whether something is drawn on a terminal.

  @doc "Columns and rows of the terminal that the calling process prints on, or `nil` where that is none."
  @spec size() :: {columns :: pos_integer(), rows :: pos_integer()} | nil
  def size do
    with {:ok, columns} when columns > 0 <- :io.columns(),
         {:ok, rows} when rows > 0 <- :io.rows(),
         false <- Process.group_leader() == Process.whereis(:user) and elsewhere?(1) do
      {columns, rows}
    else
      _no_terminal -> nil
    end
  end

  @doc "Columns of the terminal that the VM's stderr is, or `nil`."
  @spec stderr_columns() :: pos_integer() | nil
  def stderr_columns do
    with {:ok, columns} when columns > 0 <- :io.columns(:standard_error),
         false <- elsewhere?(2) do
      columns
    else
      _no_terminal -> nil
    end
  end

  # So long, in steps of so many milliseconds, it may take until a terminal has taken what was written.
  @steps 200
  @step_ms 5

  @doc """
  Waits until what this process has printed on stderr has been written. Race: the VM writes it from another thread than
  stdout, on which something may be printed that the terminal should get later.
  """
  @spec await_stderr() :: :ok
  def await_stderr do
    # Answered when the device's port has taken it.
    _ = :io.columns(:standard_error)

    with device when device != nil <- Process.whereis(:standard_error),
         {:links, links} <- Process.info(device, :links) do
      for port <- links, is_port(port), do: await_written(port, @steps)
    end

    :ok
  end

  defp await_written(_port, 0), do: :ok

  defp await_written(port, steps) do
    case :erlang.port_info(port, :queue_size) do
      {:queue_size, size} when size > 0 ->
        Process.sleep(@step_ms)
        await_written(port, steps - 1)

      _written ->
        :ok
    end
  end

  # The size that a device of the VM has may be that of the terminal that is the VM's stdin.
  defp elsewhere?(fd) do
    case File.read_link("/proc/#{System.pid()}/fd/#{fd}") do
      {:ok, "/dev/pts/" <> _} -> false
      {:ok, "/dev/tty" <> _} -> false
      {:ok, "/dev/console"} -> false
      {:ok, _a_file_or_a_pipe} -> true
      {:error, _no_proc} -> false
    end
  end
end
