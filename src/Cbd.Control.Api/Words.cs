using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Cbd.Control.Api;

/// <summary>How the threads of a backend or a device wait for work.</summary>
[JsonConverter(typeof(PollModeJson))]
public enum PollMode
{
    /// <summary>Look on for a while after the last event, then sleep until woken: fast while busy, free when idle.</summary>
    Adaptive,

    /// <summary>Never sleep: the shortest latency, for one CPU per thread that nobody else needs.</summary>
    Busy,

    /// <summary>Sleep as soon as nothing is there: the least CPU time, one wake-up per message.</summary>
    Sleep,
}

/// <summary>The words for <see cref="PollMode"/> on command lines and in JSON.</summary>
internal static class PollModeText
{
    public const string Adaptive = "adaptive";
    public const string Busy = "busy";
    public const string Sleep = "sleep";

    public static string Of(PollMode mode) => mode switch
    {
        PollMode.Busy => Busy,
        PollMode.Sleep => Sleep,
        _ => Adaptive,
    };

    /// <summary>Null for the default.</summary>
    public static string? OfOther(PollMode mode) => mode == PollMode.Adaptive ? null : Of(mode);

    /// <exception cref="CbdException">It is none of the words.</exception>
    public static PollMode Parse(string word) => word switch
    {
        Adaptive => PollMode.Adaptive,
        Busy => PollMode.Busy,
        Sleep => PollMode.Sleep,
        _ => throw new CbdException(CbdErrorKind.Invalid, $"mode is '{word}': use {Adaptive}, {Busy} or {Sleep}"),
    };
}

/// <summary>What a device does with requests while its backend is away.</summary>
[JsonConverter(typeof(OnBackendLossJson))]
public enum OnBackendLoss
{
    /// <summary>They wait.</summary>
    Queue = 0,

    /// <summary>They are answered with EIO, those in flight too.</summary>
    Fail = 1,
}

/// <summary>The words for <see cref="OnBackendLoss"/> on command lines and in JSON.</summary>
internal static class LossText
{
    public const string Queue = "queue";
    public const string Fail = "fail";

    public static string Of(OnBackendLoss action) => action == OnBackendLoss.Fail ? Fail : Queue;

    /// <exception cref="CbdException">It is neither.</exception>
    public static OnBackendLoss Parse(string word) => word switch
    {
        Queue => OnBackendLoss.Queue,
        Fail => OnBackendLoss.Fail,
        _ => throw new CbdException(CbdErrorKind.Invalid, $"on_backend_loss is '{word}': use {Queue} or {Fail}"),
    };
}

/// <summary>The words for <see cref="StartDeviceOptions.Attach"/>.</summary>
internal static class AttachWords
{
    /// <summary>The best kind that the kernel has, else NBD over a socket.</summary>
    public const string Auto = "auto";

    /// <summary>NBD over a socket.</summary>
    public const string None = "none";

    /// <summary>The kinds of block devices, the best first.</summary>
    public static readonly IReadOnlyList<string> Kinds = ["ublk", "nbd", "fuse"];
}

/// <summary>A value that JSON has as text.</summary>
internal abstract class TextJson<T>(Func<string, T> parse, Func<T, string> text) : JsonConverter<T>
{
    public override T Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
        reader.TokenType == JsonTokenType.String ? parse(reader.GetString()!) : throw new JsonException("a text is expected");

    public override void Write(Utf8JsonWriter writer, T value, JsonSerializerOptions options) => writer.WriteStringValue(text(value));
}

internal sealed class PollModeJson() : TextJson<PollMode>(PollModeText.Parse, PollModeText.Of);

internal sealed class OnBackendLossJson() : TextJson<OnBackendLoss>(LossText.Parse, LossText.Of);

/// <summary>An id, which JSON has as null where a thing has none, and which is −1 here.</summary>
internal sealed class IdOrNullJson : JsonConverter<int>
{
    public override bool HandleNull => true;

    public override int Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
        reader.TokenType == JsonTokenType.Null ? -1 : reader.GetInt32();

    public override void Write(Utf8JsonWriter writer, int value, JsonSerializerOptions options)
    {
        if (value < 0)
            writer.WriteNullValue();
        else
            writer.WriteNumberValue(value);
    }
}

/// <summary>"0x" and 16 hexadecimal digits.</summary>
internal sealed class Hexadecimal64Json() : TextJson<ulong>(text => Hexadecimal.Parse(text, 16), value => "0x" + value.ToString("x16", CultureInfo.InvariantCulture));

/// <summary>"0x" and 8 hexadecimal digits.</summary>
internal sealed class Hexadecimal32Json() : TextJson<uint>(text => (uint)Hexadecimal.Parse(text, 8), value => "0x" + value.ToString("x8", CultureInfo.InvariantCulture));

internal static class Hexadecimal
{
    public static ulong Parse(string text, int digits) =>
        text.Length == digits + 2 && text.StartsWith("0x", StringComparison.Ordinal)
        && ulong.TryParse(text.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ulong value)
            ? value
            : throw new JsonException($"'{text}' is not 0x and {digits} digits");
}
