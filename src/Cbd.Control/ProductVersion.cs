using System.Reflection;

namespace Cbd.Control;

/// <summary>The version of this build, as Directory.Build.props has it.</summary>
internal static class ProductVersion
{
    public static string Text { get; } = typeof(ProductVersion).Assembly.GetName().Version?.ToString(3)
        ?? throw new InvalidOperationException("the assembly has no version");
}
