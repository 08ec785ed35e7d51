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
