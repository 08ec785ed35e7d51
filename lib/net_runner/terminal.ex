defmodule NetRunner.Terminal do
  @moduledoc false
  # Whether something is drawn on a terminal.

  @doc "Columns and rows of the terminal that the calling process prints on, or `nil` where that is none."
  @spec size() :: {columns :: pos_integer(), rows :: pos_integer()} | nil
  def size do
    with {:ok, columns} when columns > 0 <- :io.columns(),
         {:ok, rows} when rows > 0 <- :io.rows(),
         false <- Process.group_leader() == Process.whereis(:user) and elsewhere?() do
      {columns, rows}
    else
      _no_terminal -> nil
    end
  end

  # Of the VM's own device, the size may be that of the terminal that is its stdin.
  defp elsewhere? do
    case File.read_link("/proc/#{System.pid()}/fd/1") do
      {:ok, "/dev/pts/" <> _} -> false
      {:ok, "/dev/tty" <> _} -> false
      {:ok, "/dev/console"} -> false
      {:ok, _a_file_or_a_pipe} -> true
      {:error, _no_proc} -> false
    end
  end

  @doc "Columns of the terminal that the VM's stderr is, or `nil`."
  @spec stderr_columns() :: pos_integer() | nil
  def stderr_columns do
    case :io.columns(:standard_error) do
      {:ok, columns} when columns > 0 -> columns
      _no_terminal -> nil
    end
  end
end
