namespace Cbd.Control.Api.Client;

/// <summary>Where a daemon's run and state directories are when nobody says.</summary>
internal static class RunDirectories
{
    public const string SocketName = "cbdd.sock";
    /// <summary>One for all users of the machine; not in root's run directory, which others cannot pass through.</summary>
    public const string DisksDirectory = "/run/cbd-disks";

    public const string RunDirectoryVariable = "CBD_RUN_DIR";

    /// <summary>Root: /run/cbd; others: $XDG_RUNTIME_DIR/cbd, or an error that says what to give.</summary>
    public static string DefaultRunDirectory()
    {
        if (Environment.IsPrivilegedProcess)
            return "/run/cbd";
        return Absolute("XDG_RUNTIME_DIR") is { } runtime
            ? Path.Combine(runtime, "cbd")
            : throw new CbdException(CbdErrorKind.Invalid, "XDG_RUNTIME_DIR is not set, so there is no default run directory; give one with --run-dir");
    }

    /// <summary>Root: /var/lib/cbd; others: $XDG_STATE_HOME/cbd or ~/.local/state/cbd.</summary>
    public static string DefaultStateDirectory()
    {
        if (Environment.IsPrivilegedProcess)
            return "/var/lib/cbd";
        if (Absolute("XDG_STATE_HOME") is { } state)
            return Path.Combine(state, "cbd");
        return Absolute("HOME") is { } home
            ? Path.Combine(home, ".local/state/cbd")
            : throw new CbdException(CbdErrorKind.Invalid, "neither XDG_STATE_HOME nor HOME is set, so there is no default state directory; give one with --state-dir");
    }

    /// <summary>The run directory a client means: the option, else CBD_RUN_DIR, else the default.</summary>
    public static string ForClient(string? option)
    {
        if (option is { Length: 0 })
            throw new CbdException(CbdErrorKind.Invalid, "--run-dir is empty; give the run directory of a daemon, or leave it out");
        var chosen = option ?? Environment.GetEnvironmentVariable(RunDirectoryVariable);
        return string.IsNullOrEmpty(chosen) ? DefaultRunDirectory() : PathText.DirectoryFromCaller(chosen);
    }

    /// <summary>The XDG rule: a path that is not absolute counts as not set.</summary>
    private static string? Absolute(string variable) =>
        Environment.GetEnvironmentVariable(variable) is { } value && value.StartsWith('/') ? value : null;
}
